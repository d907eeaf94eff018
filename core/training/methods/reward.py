"""A reward model as a whole run: its training on pairs, with held-out evaluation, and its publication."""

from functools import partial

from core.training.methods.pair_evaluation import PairState
from core.training.methods.reward_evaluation import RewardEvaluation
from core.training.model.policies import PolicySource, policy_saver, trainable_parameters
from core.training.observer import Stage
from core.training.plan import RewardPlan
from core.training.stages.best_weights import best_weights
from core.training.stages.context import RunContext
from core.training.stages.last_stage import resume, run_to_end
from core.training.stages.micro_batch import fit_to_memory
from core.training.stages.model_checks import load_checked
from core.training.stages.outcome import Outcome, TrainedPolicy
from core.training.stages.run import StageRun
from core.training.steps.optimizer import MasterOptimizer
from core.training.steps.pair_table import PairTable
from core.training.steps.rewards import RewardForward, RewardTask


def run_reward(context: RunContext) -> Outcome:
    """Run reward ► evaluation."""
    settings = context.plan.reward
    assert settings is not None
    return Outcome(_train(context, settings))


def _train(context: RunContext, settings: RewardPlan) -> TrainedPolicy:
    plan = context.plan
    model = load_checked(context, PolicySource(), context.train)
    over = partial(
        RewardForward,
        model,
        center_rewards_coefficient=settings.center_rewards_coefficient,
        ranks=context.ranks,
    )
    train, validation = over(context.train), None if context.validation is None else over(context.validation)
    state, task = PairState(PairTable(len(validation.data) if validation else 0)), RewardTask(train)
    run = StageRun(
        task=task,
        plan=settings,
        optimizer=MasterOptimizer(trainable_parameters(model), settings, context.ranks),
        order=context.order_of(context.train, settings, Stage.REWARD),
        budget=context.budget,
        device=context.device,
        kept_tensors={"validation_pairs": state.tensors()},
        kept_state=state,
        save_policy=policy_saver(model, plan, context.ranks),
        ranks=context.ranks,
    )
    run.best = best_weights(context, run.optimizer)
    evaluation = RewardEvaluation(
        context=context,
        model=model,
        stage=Stage.REWARD,
        progress=run.progress,
        best=run.best,
        train=train,
        validation=validation,
        train_rewards=task.rewards,
        known=state,
    )
    fit_to_memory(context, model, run, is_resumed=context.checkpoint is not None)
    is_resumed = resume(context, run)
    return run_to_end(context, run, evaluation, is_resumed=is_resumed)
