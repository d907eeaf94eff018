"""Supervised fine-tuning as a whole run: SFT with held-out evaluation, and its policy published."""

from core.training.methods.supervised_evaluation import SupervisedEvaluation, SupervisedState
from core.training.model.policies import PolicySource
from core.training.observer import Stage
from core.training.seeding import derive_seed, seed_all
from core.training.stages.best_weights import best_weights
from core.training.stages.context import RunContext
from core.training.stages.loop import TrainingLoop, Validation
from core.training.stages.micro_batch import fit_to_memory
from core.training.stages.model_checks import load_checked
from core.training.stages.outcome import Outcome, TrainedPolicy
from core.training.stages.sft import sft_run


def run_supervised(context: RunContext) -> Outcome:
    """Run sft ► evaluation. The same rows and settings give the weights that SFT in a preference run would."""
    base = PolicySource()
    return Outcome(_train(context, base), base)


def _train(context: RunContext, base: PolicySource) -> TrainedPolicy:
    plan, observer, settings = context.plan, context.observer, context.plan.last_stage
    model = load_checked(context, base, context.train)
    state = SupervisedState.empty(0 if context.validation is None else len(context.validation))
    run = sft_run(context, model, context.train, settings, state)
    run.best = best_weights(context, run.optimizer)
    evaluation = SupervisedEvaluation(
        context=context, model=model, stage=Stage.SFT, progress=run.progress, best=run.best, known=state
    )
    is_resumed = context.checkpoint is not None
    fit_to_memory(context, model, run, is_resumed=is_resumed)
    seed_all(derive_seed(plan.seed, Stage.SFT.value))
    if (checkpoint := context.take_checkpoint(Stage.SFT)) is not None:
        run.restore(checkpoint)
    validation = None
    if context.validation is not None:
        validation = Validation(
            evaluation.validate, plan.evaluate_every_steps, settings.early_stopping, plan.pause_at_share
        )
    every = plan.checkpoint_every_steps
    loop = TrainingLoop(run, observer, context.checkpoints, every, validation, is_resumed=is_resumed)
    observer.stage_started(Stage.SFT, run.order.total_steps, run.progress.step)
    if run.progress.step == 0:
        evaluation.begin()
        observer.progress(Stage.SFT, 0, run.order.total_steps, None)
    loop.run()
    observer.stage_finished(Stage.SFT)
    return evaluation.finish(loop)
