"""The preference stage with its reference before it and its evaluation after it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from torch import Tensor

from core.domain.event_kinds import BEST_RESTORED
from core.training.data.columns import HostColumns
from core.training.data.encoded import EncodedData
from core.training.data.order import epoch_permutation
from core.training.losses.objective import UnpairedObjective
from core.training.measures.evaluate_rows import evaluate_rows
from core.training.measures.held_out import describe_held_out
from core.training.measures.pair_report import SplitReport, write_pair_report
from core.training.measures.policy_kl import draw_answer
from core.training.measures.reference_kl import Draw, SampledKl
from core.training.model.generation import generate
from core.training.model.policies import PolicySource, policy_saver, trainable_parameters
from core.training.model.sharding import whole_weights
from core.training.observer import JsonValue, Sample, Stage
from core.training.seeding import derive_seed, seed_all
from core.training.stages.best_weights import BestWeights
from core.training.stages.context import RunContext
from core.training.stages.loop import TrainingLoop, Validation
from core.training.stages.micro_batch import fit_to_memory
from core.training.stages.model_checks import load_checked
from core.training.stages.outcome import SavedPolicy, TrainedPolicy
from core.training.stages.reference import fill_reference
from core.training.stages.run import LoopEnd, StageRun
from core.training.steps.figures import Figures
from core.training.steps.optimizer import MasterOptimizer
from core.training.steps.pair_table import PairTable
from core.training.steps.pairs import DpoTask, PairForward
from core.training.steps.reference_logps import TRAIN, VALIDATION, ReferenceLogps, SplitLogps
from core.training.steps.reference_pass import ReferencePass
from core.training.steps.unpaired import UnpairedForward, UnpairedTask

PAIRS_FILE = "pairs.jsonl"


class DpoStage:
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
        self._validation_rewards = PairTable(num_validation or 0)
        kept["validation_pairs"] = self._validation_rewards.state()
        forward = self._forward(context.train, None if self._reference is None else self._reference.train)
        self._task = DpoTask(forward) if isinstance(forward, PairForward) else UnpairedTask(forward)
        self._reference_samples: list[list[int]] = []
        self._answers: list[list[int]] = []
        self._drawn: list[list[int]] = []
        self._is_finishing = False
        self._sampled_kl = SampledKl(context.plan, context.validation)
        self._run = StageRun(
            task=self._task,
            plan=plan.dpo,
            optimizer=MasterOptimizer(trainable_parameters(self._model), plan.dpo, context.ranks),
            order=context.dpo_order(),
            budget=context.budget,
            device=context.device,
            kept_tensors=kept,
            kept_facts={
                "reference_samples": self._reference_samples,
                "answers": self._answers,
                "drawn": self._drawn,
                "reference_draws": self._sampled_kl.draws,
            },
            save_policy=policy_saver(self._model, plan),
            whole_policy=partial(whole_weights, self._model),
            sft_dir=source.sft_dir,
            ranks=context.ranks,
        )
        self._run.best = self._best_weights()
        fit_to_memory(context, self._model, self._run, is_resumed=context.checkpoint is not None)

    def run(self) -> TrainedPolicy | SavedPolicy:
        """Run reference, DPO and evaluation."""
        context, observer, plan = self._context, self._context.observer, self._context.plan
        seed_all(derive_seed(plan.seed, Stage.DPO.value))
        checkpoint = context.take_checkpoint(Stage.DPO)
        if checkpoint is not None:
            self._run.restore(checkpoint)
            self._reference_samples += cast(list[list[int]], checkpoint.facts["reference_samples"])
            self._answers += cast(list[list[int]], checkpoint.facts["answers"])
            self._drawn += cast(list[list[int]], checkpoint.facts["drawn"])
            self._sampled_kl.draws += cast(list[Draw], checkpoint.facts.get("reference_draws", []))
        elif not self._provide_reference():
            return SavedPolicy(self._model, Stage.REFERENCE, 0)
        validation = None
        if context.validation is not None:
            validation = Validation(self._evaluate, plan.evaluate_every_steps, plan.dpo.early_stopping)
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
            self._answer_prompts(self._reference_samples)
            self._sampled_kl.draw(self._model)
        loop.run()
        observer.stage_finished(Stage.DPO)
        return self._finish(loop)

    def _best_weights(self) -> BestWeights | None:
        """Return where the best weights are kept, if early stopping publishes them."""
        context, stopping = self._context, self._context.plan.dpo.early_stopping
        if stopping is None or not stopping.restore_best or context.validation is None:
            return None
        path = context.work_dir / f"best-{context.ranks.rank}.safetensors"
        return BestWeights(path, self._run.optimizer)

    def _forward(self, data: EncodedData, reference: SplitLogps | None) -> PairForward | UnpairedForward:
        objective, ranks = self._context.objective, self._context.ranks
        if isinstance(objective, UnpairedObjective):
            assert reference is not None
            return UnpairedForward(self._model, data, objective, reference, ranks)
        return PairForward(self._model, data, objective, reference, ranks)

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

    def _finish(self, loop: TrainingLoop) -> TrainedPolicy:
        """Run the evaluation stage: validation pairs and prompts once more, under the final policy.

        Raises:
            TrainingStopped: the observer asked for it; `save` is what happens anyway.
        """
        self._is_finishing = True
        observer, progress = self._context.observer, self._run.progress
        observer.stage_started(Stage.EVALUATION, 1, 0)
        if self._context.validation is not None and progress.evaluated_step != progress.step:
            self._insist(loop, loop.evaluate)
        if progress.end is LoopEnd.FINISHED and progress.needs_best:
            self._insist(loop, self._restore_best)
        if self._context.plan.score_train_rows and not progress.parts_done:
            self._insist(loop, self._score_train_rows)
        self._insist(loop, self._answer_again)
        self._insist(loop, self._draw_answers)
        samples = tuple(
            Sample(prompt_index=index, reference=tuple(reference), policy=tuple(policy))
            for index, (reference, policy) in enumerate(zip(self._reference_samples, self._answers, strict=True))
        )
        step = progress.best_step if progress.is_best_restored and progress.best_step is not None else progress.step
        observer.samples(step, samples)
        observer.progress(Stage.EVALUATION, 1, 1, None)
        observer.stage_finished(Stage.EVALUATION)
        return TrainedPolicy(
            self._model,
            step,
            progress.evaluation,
            samples,
            drawn=tuple(self._drawn),
            summary=self._summarise(),
            pairs_file=self._report(),
        )

    def _restore_best(self) -> bool:
        """Go back to the weights of the best evaluation; False when a stop broke it off."""
        progress, stopping = self._run.progress, self._context.plan.dpo.early_stopping
        assert self._run.best is not None
        assert stopping is not None
        self._run.best.restore()
        figures = self._evaluate()  # the rewards of held-out pairs are to be those of these weights
        if figures is None:
            return False
        progress.evaluation, progress.is_best_restored = figures, True
        self._context.observer.event(
            "info",
            BEST_RESTORED,
            f"The policy of step {progress.best_step} is published, the best of all evaluations by {stopping.metric} "
            f"({progress.best_value:.4g}); training went on to step {progress.step}.",
            {
                "metric": stopping.metric,
                "value": progress.best_value,
                "step": progress.best_step,
                "last_step": progress.step,
            },
        )
        return True

    def _insist(self, loop: TrainingLoop, work: Callable[[], bool]) -> None:
        """Repeat `work` until it is done; a stop that interrupted it is carried out, unless it is `save`."""
        while not work():
            loop.honour(self._context.observer.stop_requested())

    def _score_train_rows(self) -> bool:
        """Score the training pairs under the final policy; False when a stop interrupted it."""
        reference = None if self._reference is None else self._reference.train
        forward = self._forward(self._context.train, reference)
        host = self._evaluate_split(forward)
        if host is None:
            return False
        self._task.rewards.settle(forward.rewards(host))
        self._run.progress.parts_done += 1
        return True

    def _evaluate(self) -> Figures | None:
        """Return validation figures; None when a stop interrupted it."""
        validation = self._context.validation
        assert validation is not None
        reference = None if self._reference is None else self._reference.validation
        forward = self._forward(validation, reference)
        host = self._evaluate_split(forward)
        if host is None:
            return None
        self._validation_rewards.record(forward.rewards(host))
        return forward.figures(host) | self._sampled_kl.figures(self._model)

    def _evaluate_split(self, forward: PairForward | UnpairedForward) -> HostColumns | None:
        """Score all of a split's rows under the current policy; None when a stop interrupted it."""
        group_size, budget = self._context.plan.dpo.batch_size, self._context.budget

        def evaluate() -> HostColumns | None:
            return evaluate_rows(forward, group_size, budget, self._is_interrupted)

        return budget.run(evaluate, self._context.observer, Stage.DPO)

    def _answer_prompts(self, answers: list[list[int]]) -> bool:
        """Generate the answers that are missing; False when a stop interrupted it."""
        plan = self._context.plan
        for prompt in plan.sample_prompts[len(answers) :]:
            if self._is_interrupted():
                return False
            answers.append(generate(self._model, prompt, plan.max_new_tokens, plan.eos_token_ids))
        return True

    def _answer_again(self) -> bool:
        before = len(self._answers)
        is_done = self._answer_prompts(self._answers)
        self._run.progress.parts_done += len(self._answers) - before
        return is_done

    def _draw_answers(self) -> bool:
        """Draw the sampled answers that are missing; False when a stop interrupted it."""
        plan = self._context.plan
        for index in range(len(self._drawn), len(plan.sample_prompts)):
            if self._is_interrupted():
                return False
            self._drawn.append(draw_answer(self._model, plan, index))
            self._run.progress.parts_done += 1
        return True

    def _summarise(self) -> dict[str, JsonValue]:
        validation = self._context.validation
        if validation is None or isinstance(self._context.objective, UnpairedObjective):
            return {}
        reference = None if self._reference is None else self._reference.validation
        seed = self._context.plan.seed
        return {"held_out": describe_held_out(validation, self._validation_rewards, reference, seed)}

    def _is_interrupted(self) -> bool:
        request = self._context.observer.stop_requested()
        return request in ("checkpoint", "abandon") or (request == "save" and not self._is_finishing)

    def _report(self) -> Path:
        context = self._context
        train_reference = None if self._reference is None else self._reference.train
        order = epoch_permutation(len(context.train), context.plan.seed, Stage.DPO, 0)
        splits = [SplitReport("train", context.train, self._task.rewards, train_reference, order)]
        if context.validation is not None:
            reference = None if self._reference is None else self._reference.validation
            splits.append(SplitReport("validation", context.validation, self._validation_rewards, reference))
        path = context.work_dir / PAIRS_FILE
        if context.ranks.is_leader:
            write_pair_report(path, splits)
        return path
