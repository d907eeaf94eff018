"""Evaluation of the last training stage: on held-out rows while it trains, and of the final policy at its end.

What is measured differs between methods (`core.training.methods`); the order of things, the answers to sample prompts
and the return to the best policy are the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from core.domain.jobs.event_kinds import BEST_RESTORED
from core.training.data.columns import HostColumns
from core.training.measures.evaluate_rows import evaluate_rows
from core.training.measures.policy_kl import draw_answer
from core.training.model.generation import generate
from core.training.model.policies import adapter_dropout_off
from core.training.model.sharding import reshard
from core.training.observer import JsonValue, Sample, Stage, TrainedStage
from core.training.stages.best_weights import BestWeights
from core.training.stages.context import RunContext
from core.training.stages.loop import TrainingLoop
from core.training.stages.outcome import TrainedPolicy
from core.training.stages.run import LoopEnd, LoopProgress
from core.training.stages.stopping import is_interrupted
from core.training.steps.figures import Figures
from core.training.steps.task import RowForward


@dataclass
class EvaluationState(ABC):
    """Results of evaluations that checkpoints carry, so that a resumed run need not repeat them."""

    reference_samples: list[list[int]] = field(default_factory=list, kw_only=True)
    """Greedy answers to the sample prompts before the first update."""
    answers: list[list[int]] = field(default_factory=list, kw_only=True)
    """Greedy answers of the final policy."""
    drawn: list[list[int]] = field(default_factory=list, kw_only=True)
    """Answers of the final policy drawn at temperature 1."""
    held_out: dict[str, JsonValue] = field(default_factory=dict, kw_only=True)
    """Figures of the latest evaluation, with their intervals."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the values of validation rows; copying into these tensors restores them."""

    def facts(self) -> dict[str, JsonValue]:
        return {
            "reference_samples": self.reference_samples,
            "answers": self.answers,
            "drawn": self.drawn,
            "held_out": self.held_out,
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.reference_samples = list(facts["reference_samples"])
        self.answers, self.drawn = list(facts["answers"]), list(facts["drawn"])
        self.held_out = dict(facts.get("held_out", {}))


@dataclass(kw_only=True)
class Evaluation(ABC):
    """Evaluates one run of the last training stage; a requested stop interrupts it between two pieces of work.

    The adapter's dropout, which SFT trains with, is off meanwhile.
    """

    context: RunContext
    model: PreTrainedModel
    stage: TrainedStage
    progress: LoopProgress
    best: BestWeights | None
    """Weights of the best evaluation, where early stopping publishes them."""
    is_finishing: bool = False

    @property
    @abstractmethod
    def state(self) -> EvaluationState: ...

    @abstractmethod
    def validate(self) -> Figures | None:
        """Return validation figures; None when a stop interrupted it."""

    @abstractmethod
    def summarise(self) -> Mapping[str, JsonValue]:
        """Return what was measured of the final policy besides the figures that stand for the run."""

    def begin(self) -> None:
        """Answer the sample prompts with the policy before its first update."""
        self.answer_prompts(self.state.reference_samples)

    def score_training_rows(self) -> bool:
        """Score the training rows under the final policy where asked for; False when a stop interrupted it."""
        return True

    def write_report(self) -> Path | None:
        """Write what became of every row, if the method has such a report."""
        return None

    def finish(self, loop: TrainingLoop) -> TrainedPolicy:
        """Run the evaluation stage: validation rows and prompts once more, under the final policy.

        Raises:
            TrainingStopped: the observer asked for it; `save` is what happens anyway.
        """
        self.is_finishing = True
        observer, progress, state = self.context.observer, self.progress, self.state
        observer.stage_started(Stage.EVALUATION, 1, 0)
        if self.context.validation is not None and progress.evaluated_step != progress.step:
            _insist(loop, loop.evaluate)
        if progress.end is LoopEnd.FINISHED and progress.needs_best:
            _insist(loop, self._restore_best)
        _insist(loop, self.score_training_rows)
        _insist(loop, self._answer_again)
        _insist(loop, self._draw_answers)
        samples = tuple(
            Sample(prompt_index=index, reference=tuple(reference), policy=tuple(policy))
            for index, (reference, policy) in enumerate(zip(state.reference_samples, state.answers, strict=True))
        )
        step = progress.best_step if progress.is_best_restored and progress.best_step is not None else progress.step
        observer.samples(step, samples)
        observer.progress(Stage.EVALUATION, 1, 1, None)
        observer.stage_finished(Stage.EVALUATION)
        return TrainedPolicy(
            model=self.model,
            stage=self.stage,
            step=step,
            evaluation=progress.evaluation,
            samples=samples,
            drawn=tuple(state.drawn),
            summary={**self.summarise(), "results": self.results(step)},
            pairs_file=self.write_report(),
        )

    def results(self, step: int) -> dict[str, JsonValue]:
        """Return the figures that stand for the run: held-out ones of the policy, training means beside them."""
        training = self.progress.epoch_means.means()
        return {"step": step, "held_out": self.state.held_out or None, "training": training or None}

    def evaluate_split(self, forward: RowForward) -> HostColumns | None:
        """Evaluate all of a split's rows under the current policy; None when a stop interrupted it."""
        groups, budget = self.context.row_groups(forward.data), self.context.budget

        def evaluate() -> HostColumns | None:
            with adapter_dropout_off(self.model):
                return evaluate_rows(forward, groups, budget, self._is_interrupted)

        return budget.run(evaluate, self.context.observer, self.stage)

    def answer_prompts(self, answers: list[list[int]]) -> bool:
        """Generate the answers that are missing; False when a stop interrupted it."""
        plan = self.context.plan
        for prompt in plan.sample_prompts[len(answers) :]:
            if self._is_interrupted():
                return False
            with adapter_dropout_off(self.model):
                answers.append(generate(self.model, prompt, plan.max_new_tokens, plan.eos_token_ids))
        return True

    def _is_interrupted(self) -> bool:
        return is_interrupted(self.context.observer, is_finishing=self.is_finishing)

    def _restore_best(self) -> bool:
        """Go back to the weights of the best evaluation; False when a stop interrupted it."""
        progress, stopping = self.progress, self.context.plan.last_stage.early_stopping
        assert self.best is not None
        assert stopping is not None
        reshard(self.model)  # what the evaluation left whole is of the last weights
        self.best.restore()
        figures = self.validate()  # what is known of held-out rows is to be of these weights
        if figures is None:
            return False
        progress.evaluation, progress.is_best_restored = figures, True
        self.context.observer.event(
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

    def _answer_again(self) -> bool:
        before = len(self.state.answers)
        is_done = self.answer_prompts(self.state.answers)
        self.progress.parts_done += len(self.state.answers) - before
        return is_done

    def _draw_answers(self) -> bool:
        """Draw the sampled answers that are missing; False when a stop interrupted it."""
        plan, drawn = self.context.plan, self.state.drawn
        for index in range(len(drawn), len(plan.sample_prompts)):
            if self._is_interrupted():
                return False
            with adapter_dropout_off(self.model):
                drawn.append(draw_answer(self.model, plan, index))
            self.progress.parts_done += 1
        return True


def _insist(loop: TrainingLoop, work: Callable[[], bool]) -> None:
    """Repeat `work` until it is done; a stop that interrupted it is carried out, unless it is `save`."""
    while not work():
        loop.stop_if_requested()
