"""The SFT stage: from the base model to the policy that DPO starts from."""

from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from core.training.checkpoints.digests import sft_digest
from core.training.data.encoded import EncodedData
from core.training.failures import BadData, BadStageOutput
from core.training.model.policies import (
    PolicySource,
    check_sft_policy,
    enable_adapter_dropout,
    policy_saver,
    save_sft_policy,
    trainable_parameters,
)
from core.training.observer import Stage, StageOutput
from core.training.plan import SftPlan
from core.training.seeding import derive_seed, seed_all
from core.training.stages.context import RunContext, open_rows
from core.training.stages.evaluation import EvaluationState
from core.training.stages.loop import TrainingLoop
from core.training.stages.micro_batch import fit_to_memory
from core.training.stages.model_checks import load_checked
from core.training.stages.outcome import SavedPolicy
from core.training.stages.run import LoopEnd, StageRun
from core.training.steps.optimizer import MasterOptimizer
from core.training.steps.sft import SftTask


def provide_sft_policy(context: RunContext) -> PolicySource | SavedPolicy:
    """Return the policy that DPO starts from: trained, reused, kept in a checkpoint, or the base model."""
    plan = context.plan
    if context.is_past(Stage.SFT):
        kept = context.checkpoint.policy_dir if context.checkpoint is not None else None
        return PolicySource(kept)
    digest = sft_digest(plan)
    if plan.sft is None or digest is None:
        context.observer.stage_skipped(Stage.SFT, "skipped")
        return PolicySource()
    if plan.reuse.sft_dir is not None and context.checkpoint is None:
        try:
            check_sft_policy(Path(plan.reuse.sft_dir), digest)
        except BadStageOutput as error:
            context.observer.event("warning", "reuse_refused", error.detail, {"stage": Stage.SFT.value})
        else:
            context.observer.stage_skipped(Stage.SFT, "reused")
            return PolicySource(Path(plan.reuse.sft_dir))
    return _train(context, plan.sft, digest)


def _train(context: RunContext, stage: SftPlan, digest: str) -> PolicySource | SavedPolicy:
    plan, observer = context.plan, context.observer
    data = _demonstrations(context)
    ranks = context.ranks
    model = load_checked(context, PolicySource(), data)
    run = sft_run(context, model, data, stage)
    fit_to_memory(context, model, run, is_resumed=context.checkpoint is not None)
    seed_all(derive_seed(plan.seed, Stage.SFT.value))
    checkpoint = context.take_checkpoint(Stage.SFT)
    if checkpoint is not None:
        run.restore(checkpoint)
    loop = TrainingLoop(
        run, observer, context.checkpoints, plan.checkpoint_every_steps, is_resumed=checkpoint is not None
    )
    observer.stage_started(Stage.SFT, run.order.total_steps, run.progress.step)
    if loop.run() is LoopEnd.SAVED:
        return SavedPolicy(model, Stage.SFT, run.progress.step)
    directory = context.fresh_path("sft")
    save_sft_policy(model, plan, digest, directory, ranks)
    observer.stage_output(StageOutput(directory=directory, stage=Stage.SFT, digest=digest))
    observer.stage_finished(Stage.SFT)
    return PolicySource(directory)


def sft_run(
    context: RunContext,
    model: PreTrainedModel,
    data: EncodedData,
    stage: SftPlan,
    state: EvaluationState | None = None,
) -> StageRun:
    """Return the state of SFT at its start, with the adapter's dropout on.

    Args:
        state: what its evaluations keep, where it is evaluated.
    """
    enable_adapter_dropout(model)
    return StageRun(
        task=SftTask(model, data, context.ranks),
        plan=stage,
        optimizer=MasterOptimizer(trainable_parameters(model), stage, context.ranks),
        order=context.order_of(data, stage, Stage.SFT),
        budget=context.budget,
        device=context.device,
        kept_tensors={} if state is None else {"validation_rows": state.tensors()},
        kept_state=state,
        save_policy=policy_saver(model, context.plan, context.ranks),
        ranks=context.ranks,
    )


def _demonstrations(context: RunContext) -> EncodedData:
    """Return the demonstrations: a dataset, else the training rows' chosen responses or those marked good."""
    if context.plan.sft_data is not None:
        return open_rows(context.plan.sft_data, "demonstration")
    if context.train.kind != "unpaired":
        return context.train
    good = context.train.select(np.flatnonzero(context.train.labels))
    if not len(good):
        raise BadData('No response is marked good, so SFT has nothing to learn from. Skip it: "sft": "skip".')
    return good
