"""Kinds of events by which trainer and supervisor understand each other beyond the protocol's own messages."""

CHECKPOINT_UNUSABLE = "checkpoint_unusable"
"""Sent before `failed`: the checkpoint to resume from is intact but cannot be used; try an older one."""
SLOW_PRECISION = "slow_precision"
"""bf16 was asked for on a device that computes it slower than fp32."""
PAIRS_SET_ASIDE = "pairs_set_aside"
"""Rows that are too long, equal once rendered, or not for this base model: how many of each."""

SHARED_PROMPTS = "shared_prompts"
"""Prompts of the validation dataset that are trained on."""
VALIDATION_SPLIT = "validation_split"
"""How many rows and prompts are held out, and which."""
ROWS_READ_OTHERWISE = "rows_read_otherwise"
"""An earlier version took a dataset in, and its file gives other rows today: which, and what to do."""
ROWS_MADE_ANEW = "rows_made_anew"
"""Stored rows were damaged, and were made again of the upload."""
WAITING_FOR_STORE = "waiting_for_store"
"""The attempt cannot go on without the object store, which does not answer as it should; it tries again."""
UPDATE_ROUNDED_AWAY = "update_rounded_away"
"""The type that a policy was asked to be published in loses a part of what was trained."""
MODEL_SHARED = "model_shared"
"""How the devices of the job share its model."""
NOT_VERIFIED = "not_verified"
"""No text was scored with the saved policy, for lack of memory."""
BASE_ROUNDED = "base_rounded"
"""The base model's weights are finer than the precision that the job computes in."""
COMPUTES_IN_FP32 = "computes_in_fp32"
"""`auto` chose fp32, since the base model is a policy whose update bf16 would round away."""
MERGED_IN_BF16 = "merged_in_bf16"
"""An earlier version published a LoRA policy merged in bf16, which lost a part of its update."""
REPUBLISHED = "republished"
"""The policy was published again, from adapter and base model: the artifact's digests have changed."""
BEST_RESTORED = "best_restored"
"""Early stopping publishes the policy of the best evaluation, beyond which training had gone on."""

EVENT_KINDS: dict[str, str] = {
    "adapter_reach": "The adapter tunes a part of the linear layers' weights only: which layers are left out.",
    "base_rounded": "The base model's weights are finer than the precision that the job computes in.",
    "best_restored": "Early stopping publishes the policy of the best evaluation, beyond which training had gone on.",
    "cancel_requested": "The user asked to cancel the running job; it ends at its next step.",
    "cancelled": "The job was cancelled, for good; says whether its policy was published as it was.",
    "checkpoint": "A checkpoint was saved, from which the job can be resumed.",
    "checkpoint_corrupt": "A checkpoint is damaged and is not used; the job goes on from an earlier one.",
    "checkpoint_unusable": "The checkpoint to resume from is intact but cannot be used; an older one is tried.",
    "computes_in_fp32": "`auto` chose fp32, since the base model is a policy whose update bf16 would round away.",
    "disk_full": "The worker's disk is full, and a checkpoint or policy was left out; training goes on.",
    "doctor": "Advice on the curves, with its evidence: each rule once per job (docs/guide/doctor.md).",
    "dropped": "The sweep of the job goes on without it, by its held-out figure at a rung; it is cancelled.",
    "early_stopping": "The watched metric stopped improving, and training ends.",
    "exported": "An export of the policy is among the artifact's files.",
    "failed": "The job failed; `data.code` is one of the failure codes.",
    "gang_unfilled": "Too few workers came free at a time for the nodes of the job: they are free again, for a while.",
    "memory_fitted": "Fewer tokens run at once, to fit into memory; the batch of an optimizer step stays the same.",
    "merged_in_bf16": "An earlier version published a LoRA policy merged in bf16, which lost a part of its update.",
    "model_shared": "How the devices of the job share its model: which parts each of them keeps.",
    "no_cache": "The base model generates without a cache here: samples take longer.",
    "no_validation": "No held-out pair can be used, so nothing is measured on held-out rows.",
    "nodes_changed": "The user asked for another number of workers that train the job together.",
    "not_verified": "No text was scored with the saved policy, for lack of memory; its files were compared.",
    "object_damaged": "A file that the job has stored is missing in the object store, or damaged.",
    "one_at_a_time": "Rows of this base model run one sequence at a time: right, and several times slower.",
    "oom_degraded": "The device ran out of memory; training goes on with fewer tokens at once.",
    "pairs_set_aside": "Rows that are too long, equal once rendered, or not for this base model: how many of each.",
    "pause_requested": "The user asked to pause the running job; it stops at its next checkpoint.",
    "paused": "The job is paused at a checkpoint, by its user or where its sweep compares members.",
    "policy_deleted": "The user deleted what the job had published.",
    "prompts_spread": "A prompt has more rows than a step takes: they go over consecutive steps.",
    "prompts_whole": "A prompt has more rows than a step takes, and all are one step, since the variant compares them.",
    "republished": "The policy was published again, from adapter and base model: the artifact's digests have changed.",
    "requeued": "The attempt ended before the job did, and the job is queued again; says why.",
    "resume_divergence": "Steps that were repeated after a resume gave other numbers than before.",
    "resume_requested": "The user withdrew the request to pause.",
    "resumed": "The job goes on: from a checkpoint, from the beginning, or queued again by the user.",
    "resumed_elsewhere": "Library versions, kind or number of devices are others than before: last bits may differ.",
    "retention": "A part of the job was deleted, some days after its end, as the service is set to do.",
    "reuse_refused": "The output of an earlier job's stage could not be taken over, and is computed again.",
    "router_loss_left_out": "The base model is a mixture of experts; no loss for balancing its router is added.",
    "rows_beyond_context": "Rows are longer than what the base model was trained on.",
    "rows_made_anew": "Stored rows were damaged, and were made again of the upload.",
    "rows_read_otherwise": "A dataset was taken in by an earlier version, and its file gives other rows today.",
    "shared_prompts": "Prompts of the validation dataset that are trained on.",
    "slow_precision": "bf16 was asked for on a device that computes it slower than fp32.",
    "stage": "A stage began, ended, was skipped or was taken over from another job.",
    "stage_awaited": "Another job is building the same stage, which this one will take over.",
    "started": "A worker took the job.",
    "submitted": "The job was queued; with what is to be known of its data.",
    "succeeded": "The job ended, and its policy is published.",
    "update_rounded_away": "The type that the policy was asked to be published in loses a part of what was trained.",
    "upload_delayed": "A checkpoint cannot be stored just now; training goes on.",
    "validation_split": "How many rows and prompts are held out, and which.",
    "waiting_for_store": "The attempt cannot go on without the object store, which does not answer; it tries again.",
    "webhook_disabled": "A webhook took nothing for a day and is disabled.",
}
"""Every kind that `GET /jobs/{id}/events` can show, with its meaning for users."""
