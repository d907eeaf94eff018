"""The preference stage: its reference, its training loop, and the hand-over to the evaluation stage."""

from functools import partial

from torch import Tensor

from core.training.measures.reference_kl import SampledKl
from core.training.model.policies import PolicySource, policy_saver, trainable_parameters
from core.training.model.sharding import whole_weights
from core.training.observer import Stage
from core.training.seeding import derive_seed, seed_all
from core.training.stages.best_weights import BestWeights
from core.training.stages.context import RunContext
from core.training.stages.evaluation import Evaluation, EvaluationState
from core.training.stages.loop import TrainingLoop, Validation
from core.training.stages.micro_batch import fit_to_memory
from core.training.stages.model_checks import load_checked
from core.training.stages.outcome import SavedPolicy, TrainedPolicy
from core.training.stages.reference import fill_reference
from core.training.stages.run import StageRun
from core.training.steps.forward import preference_task, split_forward
from core.training.steps.optimizer import MasterOptimizer
from core.training.steps.pair_table import PairTable
from core.training.steps.pairs import PairForward
from core.training.steps.reference_logps import TRAIN, VALIDATION, ReferenceLogps
from core.training.steps.reference_pass import ReferencePass
from core.training.steps.unpaired import UnpairedForward


class PreferenceStage:
    """One run of the preference stage. Policy and reference begin as the same weights."""

    def __init__(self, context: RunContext, source: PolicySource) -> None:
        plan = context.plan
        self._context, self._source = context, source
        self._model = load_checked(context, source, context.train)
        num_validation = None if context.validation is None else len(context.validation)
        self._reference: ReferenceLogps | None = None
        kept: dict[str, dict[str, Tensor]] = {}
        if context.objective.needs_reference:
            self._reference = ReferenceLogps.unknown(len(context.train), num_validation)
            kept["reference"] = self._reference.tensors()
        state = EvaluationState(PairTable(num_validation or 0), SampledKl(plan, context.validation))
        kept["validation_pairs"] = state.tensors()
        train, validation = self._forwards()
        task = preference_task(train)
        self._run = StageRun(
            task=task,
            plan=plan.dpo,
            optimizer=MasterOptimizer(trainable_parameters(self._model), plan.dpo, context.ranks),
            order=context.dpo_order(),
            budget=context.budget,
            device=context.device,
            kept_tensors=kept,
            kept_state=state,
            save_policy=policy_saver(self._model, plan),
            whole_policy=partial(whole_weights, self._model),
            sft_dir=source.sft_dir,
            ranks=context.ranks,
        )
        self._run.best = self._best_weights()
        self._evaluation = Evaluation(
            context=context,
            model=self._model,
            train=train,
            validation=validation,
            train_rewards=task.rewards,
            progress=self._run.progress,
            best=self._run.best,
            state=state,
        )
        fit_to_memory(context, self._model, self._run, is_resumed=context.checkpoint is not None)

    def run(self) -> TrainedPolicy | SavedPolicy:
        """Run reference, DPO and evaluation."""
        context, observer, plan = self._context, self._context.observer, self._context.plan
        seed_all(derive_seed(plan.seed, Stage.DPO.value))
        checkpoint = context.take_checkpoint(Stage.DPO)
        if checkpoint is not None:
            self._run.restore(checkpoint)
        elif not self._provide_reference():
            return SavedPolicy(self._model, Stage.REFERENCE, 0)
        validation = None
        if context.validation is not None:
            validation = Validation(self._evaluation.validate, plan.evaluate_every_steps, plan.dpo.early_stopping)
        loop = TrainingLoop(
            self._run,
            observer,
            context.checkpoints,
            plan.checkpoint_every_steps,
            validation,
            is_resumed=checkpoint is not None,
        )
        observer.stage_started(Stage.DPO, self._run.order.total_steps, self._run.progress.step)
        if self._run.progress.step == 0:
            self._evaluation.begin()
        loop.run()
        observer.stage_finished(Stage.DPO)
        return self._evaluation.finish(loop)

    def _best_weights(self) -> BestWeights | None:
        """Return where the best weights are kept, if early stopping publishes them."""
        context, stopping = self._context, self._context.plan.dpo.early_stopping
        if stopping is None or not stopping.restore_best or context.validation is None:
            return None
        path = context.work_dir / f"best-{context.ranks.rank}.safetensors"
        return BestWeights(path, self._run.optimizer)

    def _forwards(self) -> tuple[PairForward | UnpairedForward, PairForward | UnpairedForward | None]:
        """Return the forward passes over the training and the validation rows."""
        context, reference = self._context, self._reference
        over = partial(split_forward, self._model, objective=context.objective, ranks=context.ranks)
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
        data = {TRAIN: context.train} | ({VALIDATION: context.validation} if context.validation is not None else {})
        reference_pass = ReferencePass(
            self._model, self._run.order, data, context.budget, self._reference, context.ranks
        )
        return fill_reference(context, self._reference, reference_pass, self._source)
