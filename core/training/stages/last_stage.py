"""The last training stage of a run, whose weights are published: resumed, run to its end, evaluated."""

from core.training.seeding import derive_seed, seed_all
from core.training.stages.context import RunContext
from core.training.stages.evaluation import Evaluation
from core.training.stages.loop import TrainingLoop, Validation
from core.training.stages.outcome import TrainedPolicy
from core.training.stages.run import StageRun


def resume(context: RunContext, run: StageRun) -> bool:
    """Seed the stage and restore its checkpoint; False where it begins.

    Raises:
        BadCheckpoint: the checkpoint is damaged, or another stage's.
    """
    seed_all(derive_seed(context.plan.seed, run.task.stage.value))
    checkpoint = context.take_checkpoint(run.task.stage)
    if checkpoint is not None:
        run.restore(checkpoint)
    return checkpoint is not None


def run_to_end(context: RunContext, run: StageRun, evaluation: Evaluation, *, is_resumed: bool) -> TrainedPolicy:
    """Run the rest of the stage, then the evaluation stage.

    Raises:
        TrainingStopped: the observer asked for it.
    """
    plan, observer, stage, settings = context.plan, context.observer, run.task.stage, run.plan
    validation = None
    if context.validation is not None:
        validation = Validation(
            evaluation.validate, plan.evaluate_every_steps, settings.early_stopping, plan.pause_at_share
        )
    every = plan.checkpoint_every_steps
    loop = TrainingLoop(run, observer, context.checkpoints, every, validation, is_resumed=is_resumed)
    observer.stage_started(stage, run.order.total_steps, run.progress.step)
    if run.progress.step == 0:
        evaluation.begin()
        observer.progress(stage, 0, run.order.total_steps, None)
    loop.run()
    observer.stage_finished(stage)
    return evaluation.finish(loop)
