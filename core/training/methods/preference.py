"""Preference tuning: SFT, the reference, the preference stage with its training loop, and the evaluation stage."""

from functools import partial

from core.domain.variants.checks import get_variant
from core.training.checkpoints.digests import sft_digest
from core.training.losses.objective import Objective, UnpairedObjective, build_objective, build_unpaired_objective
from core.training.measures.reference_kl import SampledKl
from core.training.methods.preference_evaluation import PreferenceEvaluation, PreferenceState
from core.training.model.policies import PolicySource, policy_saver, saved_digest, trainable_parameters
from core.training.observer import Stage
from core.training.plan import DpoPlan, TrainingPlan
from core.training.stages.best_weights import best_weights
from core.training.stages.context import RunContext
from core.training.stages.last_stage import resume, run_to_end
from core.training.stages.micro_batch import fit_to_memory
from core.training.stages.model_checks import load_checked
from core.training.stages.outcome import Outcome, SavedPolicy, TrainedPolicy
from core.training.stages.reference import fill_reference
from core.training.stages.run import StageRun
from core.training.stages.sft import provide_sft_policy
from core.training.steps.forward import preference_task, split_forward
from core.training.steps.optimizer import MasterOptimizer
from core.training.steps.pair_table import PairTable
from core.training.steps.pairs import PairForward
from core.training.steps.reference_logps import TRAIN, VALIDATION, ReferenceLogps
from core.training.steps.reference_pass import ReferencePass
from core.training.steps.task import StageTask
from core.training.steps.unpaired import UnpairedForward


def run_preference(context: RunContext) -> Outcome:
    """Run sft ► reference ► dpo ► evaluation."""
    plan = context.plan
    objective = build(plan)  # what does not fit together shows before SFT
    source = provide_sft_policy(context)
    if isinstance(source, SavedPolicy):
        return Outcome(source, facts={"sft_digest": sft_digest(plan)})
    # What rewards are measured against: the policy of the checkpoint, which another number of devices may have trained.
    kept = None if source.sft_dir is None else saved_digest(source.sft_dir)
    facts = {"sft_digest": kept or sft_digest(plan)}
    policy = PreferenceStage(context, source, objective).run()
    is_start = plan.sft is None or source.sft_dir is not None
    return Outcome(policy, source if is_start else None, facts)


def build(plan: TrainingPlan) -> Objective | UnpairedObjective:
    """Return the objective of the plan's variant. Raises VariantError."""
    make = build_objective if get_variant(plan.variant).data == "preference" else build_unpaired_objective
    return make(plan.variant, plan.beta, plan.variant_options)


class PreferenceStage:
    """One run of the preference stage. Policy and reference begin as the same weights."""

    def __init__(self, context: RunContext, source: PolicySource, objective: Objective | UnpairedObjective) -> None:
        plan = context.plan
        assert plan.dpo is not None
        self._plan: DpoPlan = plan.dpo
        self._context, self._source, self._objective = context, source, objective
        self._model = load_checked(context, source, context.train)
        num_validation = None if context.validation is None else len(context.validation)
        self._reference: ReferenceLogps | None = None
        if objective.needs_reference:
            self._reference = ReferenceLogps.unknown(len(context.train), num_validation)
        state = PreferenceState(PairTable(num_validation or 0), SampledKl(plan, context.validation))
        train, validation = self._forwards()
        task = preference_task(train)
        self._run = self._start(task, state)
        self._run.best = best_weights(context, self._run.optimizer)
        self._evaluation = PreferenceEvaluation(
            context=context,
            model=self._model,
            stage=Stage.DPO,
            progress=self._run.progress,
            best=self._run.best,
            objective=objective,
            train=train,
            validation=validation,
            train_rewards=task.rewards,
            known=state,
        )
        fit_to_memory(context, self._model, self._run, is_resumed=context.checkpoint is not None)

    def _start(self, task: StageTask, state: PreferenceState) -> StageRun:
        """Return the state of the stage before its first step."""
        context, plan = self._context, self._plan
        kept = {} if self._reference is None else {"reference": self._reference.tensors()}
        kept["validation_pairs"] = state.tensors()
        return StageRun(
            task=task,
            plan=plan,
            optimizer=MasterOptimizer(trainable_parameters(self._model), plan, context.ranks),
            order=context.order_of(context.train, plan, Stage.DPO),
            budget=context.budget,
            device=context.device,
            kept_tensors=kept,
            kept_state=state,
            save_policy=policy_saver(self._model, context.plan, context.ranks),
            sft_dir=self._source.sft_dir,
            ranks=context.ranks,
        )

    def run(self) -> TrainedPolicy | SavedPolicy:
        """Run reference, DPO and evaluation."""
        is_resumed = resume(self._context, self._run)
        if not is_resumed and not self._provide_reference():
            return SavedPolicy(self._model, Stage.REFERENCE, 0)
        return run_to_end(self._context, self._run, self._evaluation, is_resumed=is_resumed)

    def _forwards(self) -> tuple[PairForward | UnpairedForward, PairForward | UnpairedForward | None]:
        """Return the forward passes over the training and the validation rows."""
        context, reference = self._context, self._reference
        over = partial(split_forward, self._model, objective=self._objective, ranks=context.ranks)
        train = over(context.train, reference=None if reference is None else reference.train)
        if context.validation is None:
            return train, None
        return train, over(context.validation, reference=None if reference is None else reference.validation)

    def _provide_reference(self) -> bool:
        """Compute or load the reference; False when the observer asked to finish with the current policy."""
        context = self._context
        if self._reference is None:
            context.observer.stage_skipped(Stage.REFERENCE, "skipped")
            return True
        if context.device.type == "cuda":
            # A lack of memory must show now: the reference has to be computed in the micro-batches DPO will use.
            self._run.compute_gradients(self._run.order.rows_at(self._run.progress.cursor), context.observer)
            self._run.optimizer.clear_gradients()
        data, groups = {TRAIN: context.train}, []
        if context.validation is not None:
            data[VALIDATION], groups = context.validation, context.row_groups(context.validation)
        reference_pass = ReferencePass(
            self._model,
            self._run.order,
            data,
            context.budget,
            self._reference,
            ranks=context.ranks,
            validation_groups=groups,
        )
        return fill_reference(context, self._reference, reference_pass, self._source)
