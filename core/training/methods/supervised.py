"""Supervised fine-tuning as a whole run: SFT with held-out evaluation, and its policy published."""

from core.training.methods.supervised_evaluation import SupervisedEvaluation, SupervisedState
from core.training.model.policies import PolicySource
from core.training.observer import Stage
from core.training.stages.best_weights import best_weights
from core.training.stages.context import RunContext
from core.training.stages.last_stage import resume, run_to_end
from core.training.stages.micro_batch import fit_to_memory
from core.training.stages.model_checks import load_checked
from core.training.stages.outcome import Outcome, TrainedPolicy
from core.training.stages.sft import sft_run


def run_supervised(context: RunContext) -> Outcome:
    """Run sft ► evaluation. The same rows and settings give the weights that SFT in a preference run would."""
    base = PolicySource()
    return Outcome(_train(context, base), base)


def _train(context: RunContext, base: PolicySource) -> TrainedPolicy:
    model = load_checked(context, base, context.train)
    state = SupervisedState.empty(0 if context.validation is None else len(context.validation))
    run = sft_run(context, model, context.train, context.plan.last_stage, state)
    run.best = best_weights(context, run.optimizer)
    evaluation = SupervisedEvaluation(
        context=context, model=model, stage=Stage.SFT, progress=run.progress, best=run.best, known=state
    )
    fit_to_memory(context, model, run, is_resumed=context.checkpoint is not None)
    is_resumed = resume(context, run)
    return run_to_end(context, run, evaluation, is_resumed=is_resumed)
