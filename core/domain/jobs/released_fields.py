"""Fields of specs and plans in the first released version; later ones leave no trace while at their default.

A digest, and a stored spec, holds every field of this table, and a later field only where its value is not the
default: so a new field changes no digest of runs that do not use it (an interrupted job keeps its checkpoints and
stages), and an older worker can read what a newer API stores. The table never changes; new fields need no entry.
"""

from collections.abc import Iterable

_STAGE = "epochs learning_rate batch_size warmup_steps schedule optimizer weight_decay max_grad_norm"
_OPTIMIZER = "betas alpha epsilon"

RELEASED_FIELDS = {
    kind: frozenset(names.split())
    for kind, names in {
        "EarlyStoppingPlan": "metric patience min_delta",
        "SftPlan": f"{_STAGE} {_OPTIMIZER}",
        "DpoPlan": f"{_STAGE} {_OPTIMIZER} early_stopping",
        "LoraPlan": "rank alpha dropout target_modules",
        "TrainingPlan": "base_model_dir base_model_digest train_data validation_data sft_data sft dpo variant beta "
        "variant_options lora precision device num_devices num_threads seed evaluate_every_steps "
        "checkpoint_every_steps micro_batch_tokens score_train_rows sample_prompts eos_token_ids max_new_tokens "
        "work_dir resume_from reuse",
        "SftSettings": f"{_STAGE} dataset_id",
        "DpoSettings": _STAGE,
        "LoraSettings": "rank alpha dropout target_modules",
        "EarlyStopping": "metric patience min_delta",
        "JobSpec": "base_model dataset_id variant beta variant_options sft dpo lora max_length precision seed "
        "validation_fraction validation_dataset_id evaluate_every_steps checkpoint_every_steps keep_checkpoints "
        "keep_best early_stopping score_training_pairs sample_prompts exclude_lines swap_lines reuse name metadata "
        "priority max_runtime_seconds num_parameters num_pairs micro_batch_tokens",
    }.items()
}
"""Fields by class; every field of a class that is not in the table is a later one."""


def stored_fields(kind: str, fields: Iterable[tuple[str, object, object]]) -> dict[str, object]:
    """Return the values for a digest or stored spec, of (name, value, default) of each field of a class."""
    released = RELEASED_FIELDS.get(kind, frozenset())
    return {name: value for name, value, default in fields if name in released or value != default}
