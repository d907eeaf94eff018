"""The reference stage: log-probabilities of all pairs under the frozen policy, reused or computed."""

from pathlib import Path
from time import perf_counter

from core.training.checkpoints.digests import reference_digest
from core.training.checkpoints.writer import Snapshot
from core.training.failures import BadStageOutput, NonFiniteLoss
from core.training.model.policies import PolicySource
from core.training.observer import Stage, StageOutput
from core.training.stages.context import RunContext
from core.training.stages.stopping import carry_out
from core.training.steps.reference_logps import TRAIN, VALIDATION, ReferenceLogps, load_reference, save_reference
from core.training.steps.reference_pass import ReferencePass


def fill_reference(
    context: RunContext, reference: ReferenceLogps, reference_pass: ReferencePass, source: PolicySource
) -> bool:
    """Fill `reference`; return False when the observer asked to finish with the current policy.

    Raises:
        TrainingStopped: the observer asked for it.
        NonFiniteLoss: the frozen policy gives NaN or infinite log-probabilities.
    """
    digest = reference_digest(context.plan, context.budget.tokens)
    assert digest is not None
    if context.checkpoint is None and _take_over(context, reference, digest):
        return True
    checkpoint = context.take_checkpoint(Stage.REFERENCE)
    if checkpoint is not None:
        reference_pass.restore(checkpoint.step, dict(checkpoint.tensors["reference"]))
    context.observer.stage_started(Stage.REFERENCE, reference_pass.num_groups, reference_pass.groups_done)
    if not _compute(context, reference_pass, source):
        return False
    if not reference.is_complete():
        raise NonFiniteLoss(
            "The policy that DPO starts from gives log-probabilities that are not finite. Check the base model, lower "
            "the learning rate of SFT, or train in fp32."
        )
    _publish(context, reference_pass)
    context.observer.stage_finished(Stage.REFERENCE)
    return True


def _take_over(context: RunContext, reference: ReferenceLogps, digest: str) -> bool:
    if context.plan.reuse.reference_dir is None:
        return False
    try:
        load_reference(Path(context.plan.reuse.reference_dir), digest, reference)
    except BadStageOutput as error:
        context.observer.event("warning", "reuse_refused", error.detail, {"stage": Stage.REFERENCE.value})
        return False
    context.observer.stage_skipped(Stage.REFERENCE, "reused")
    return True


def _compute(context: RunContext, reference_pass: ReferencePass, source: PolicySource) -> bool:
    """Compute all remaining groups; False when the observer asked to finish with the current policy."""
    checkpointed = reference_pass.groups_done
    while reference_pass.groups_done < reference_pass.num_groups:
        done = reference_pass.groups_done
        if done % context.plan.checkpoint_every_steps == 0 and done > checkpointed:
            context.checkpoints.try_to_write(_snapshot(context, reference_pass, source))
            checkpointed = done
        if carry_out(context.observer, lambda: context.checkpoints.write(_snapshot(context, reference_pass, source))):
            return False
        started = perf_counter()
        num_tokens = context.budget.run(reference_pass.run_group, context.observer, Stage.REFERENCE)
        speed = num_tokens / (perf_counter() - started)
        context.observer.progress(Stage.REFERENCE, reference_pass.groups_done, reference_pass.num_groups, speed)
    return True


def _snapshot(context: RunContext, reference_pass: ReferencePass, source: PolicySource) -> Snapshot:
    return Snapshot(
        stage=Stage.REFERENCE,
        step=reference_pass.groups_done,
        micro_batch_tokens=context.budget.tokens,
        facts={},
        tensors={"reference": reference_pass.tensors()},
        policy_dir=source.sft_dir,
    )


def _publish(context: RunContext, reference_pass: ReferencePass) -> None:
    digest = reference_digest(context.plan, context.budget.tokens)
    assert digest is not None
    data = {TRAIN: context.train.digest}
    if context.validation is not None:
        data[VALIDATION] = context.validation.digest
    directory = context.fresh_path("reference")
    if context.ranks.is_leader:
        save_reference(directory, digest, reference_pass.tensors(), data)
    context.observer.stage_output(StageOutput(directory=directory, stage=Stage.REFERENCE, digest=digest))
