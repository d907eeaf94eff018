"""Evaluation of the preference stage: on held-out rows while it trains, and of the final policy at its end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from core.domain.artifact_files import PAIRS_FILE
from core.domain.jobs.event_kinds import BEST_RESTORED
from core.training.data.columns import HostColumns
from core.training.data.order import epoch_permutation
from core.training.losses.objective import UnpairedObjective
from core.training.measures.evaluate_rows import evaluate_rows
from core.training.measures.final_figures import held_out_figures
from core.training.measures.held_out import describe_held_out
from core.training.measures.pair_report import SplitReport, write_pair_report
from core.training.measures.policy_kl import draw_answer
from core.training.measures.reference_kl import SampledKl
from core.training.model.generation import generate
from core.training.observer import JsonValue, Sample, Stage
from core.training.stages.best_weights import BestWeights
from core.training.stages.context import RunContext
from core.training.stages.loop import TrainingLoop
from core.training.stages.outcome import TrainedPolicy
from core.training.stages.run import LoopEnd, LoopProgress
from core.training.stages.stopping import is_interrupted
from core.training.steps.figures import Figures
from core.training.steps.pair_table import PairTable
from core.training.steps.task import SplitForward


@dataclass
class EvaluationState:
    """Results of evaluations that checkpoints carry, so that a resumed run need not repeat them."""

    validation_rewards: PairTable
    sampled_kl: SampledKl
    reference_samples: list[list[int]] = field(default_factory=list)
    """Greedy answers to the sample prompts before the first update."""
    answers: list[list[int]] = field(default_factory=list)
    """Greedy answers of the final policy."""
    drawn: list[list[int]] = field(default_factory=list)
    """Answers of the final policy drawn at temperature 1."""
    held_out: dict[str, JsonValue] = field(default_factory=dict)
    """Figures of the latest evaluation, with their intervals."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the rewards of validation pairs; copying into these tensors restores them."""
        return self.validation_rewards.state()

    def facts(self) -> dict[str, JsonValue]:
        return {
            "reference_samples": self.reference_samples,
            "answers": self.answers,
            "drawn": self.drawn,
            "reference_draws": self.sampled_kl.draws,
            "held_out": self.held_out,
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.reference_samples = list(facts["reference_samples"])
        self.answers, self.drawn = list(facts["answers"]), list(facts["drawn"])
        self.sampled_kl.draws = list(facts.get("reference_draws", []))  # none in checkpoints of the first release
        self.held_out = dict(facts.get("held_out", {}))


@dataclass(kw_only=True)
class Evaluation:
    """Evaluates one run of the preference stage; a requested stop interrupts it between two pieces of work."""

    context: RunContext
    model: PreTrainedModel
    train: SplitForward
    validation: SplitForward | None
    train_rewards: PairTable
    progress: LoopProgress
    best: BestWeights | None
    """Weights of the best evaluation, where early stopping publishes them."""
    state: EvaluationState
    is_finishing: bool = False

    def begin(self) -> None:
        """Answer the sample prompts, and draw for the divergence, with the policy before its first update."""
        self._answer_prompts(self.state.reference_samples)
        self.state.sampled_kl.draw(self.model)

    def validate(self) -> Figures | None:
        """Return validation figures; None when a stop interrupted it."""
        assert self.validation is not None
        host = self._evaluate_split(self.validation)
        if host is None:
            return None
        self.state.validation_rewards.record(self.validation.rewards(host))
        is_paired = not isinstance(self.context.objective, UnpairedObjective)
        self.state.held_out = held_out_figures(host.values, is_paired=is_paired)
        return self.validation.figures(host) | self.state.sampled_kl.figures(self.model)

    def finish(self, loop: TrainingLoop) -> TrainedPolicy:
        """Run the evaluation stage: validation pairs and prompts once more, under the final policy.

        Raises:
            TrainingStopped: the observer asked for it; `save` is what happens anyway.
        """
        self.is_finishing = True
        observer, progress, state = self.context.observer, self.progress, self.state
        observer.stage_started(Stage.EVALUATION, 1, 0)
        if self.validation is not None and progress.evaluated_step != progress.step:
            _insist(loop, loop.evaluate)
        if progress.end is LoopEnd.FINISHED and progress.needs_best:
            _insist(loop, self._restore_best)
        if self.context.plan.score_train_rows and not progress.parts_done:
            _insist(loop, self._score_train_rows)
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
            self.model,
            step,
            progress.evaluation,
            samples,
            drawn=tuple(state.drawn),
            summary={**self._summarise(), "results": self._results(step)},
            pairs_file=self._report(),
        )

    def _is_interrupted(self) -> bool:
        return is_interrupted(self.context.observer, is_finishing=self.is_finishing)

    def _restore_best(self) -> bool:
        """Go back to the weights of the best evaluation; False when a stop interrupted it."""
        progress, stopping = self.progress, self.context.plan.dpo.early_stopping
        assert self.best is not None
        assert stopping is not None
        self.best.restore()
        figures = self.validate()  # the rewards of held-out pairs are to be those of these weights
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

    def _score_train_rows(self) -> bool:
        """Score the training pairs under the final policy; False when a stop interrupted it."""
        host = self._evaluate_split(self.train)
        if host is None:
            return False
        self.train_rewards.settle(self.train.rewards(host))
        self.progress.parts_done += 1
        return True

    def _evaluate_split(self, forward: SplitForward) -> HostColumns | None:
        """Score all of a split's rows under the current policy; None when a stop interrupted it."""
        group_size, budget = self.context.plan.dpo.batch_size, self.context.budget

        def evaluate() -> HostColumns | None:
            return evaluate_rows(forward, group_size, budget, self._is_interrupted)

        return budget.run(evaluate, self.context.observer, Stage.DPO)

    def _answer_prompts(self, answers: list[list[int]]) -> bool:
        """Generate the answers that are missing; False when a stop interrupted it."""
        plan = self.context.plan
        for prompt in plan.sample_prompts[len(answers) :]:
            if self._is_interrupted():
                return False
            answers.append(generate(self.model, prompt, plan.max_new_tokens, plan.eos_token_ids))
        return True

    def _answer_again(self) -> bool:
        before = len(self.state.answers)
        is_done = self._answer_prompts(self.state.answers)
        self.progress.parts_done += len(self.state.answers) - before
        return is_done

    def _draw_answers(self) -> bool:
        """Draw the sampled answers that are missing; False when a stop interrupted it."""
        plan, drawn = self.context.plan, self.state.drawn
        for index in range(len(drawn), len(plan.sample_prompts)):
            if self._is_interrupted():
                return False
            drawn.append(draw_answer(self.model, plan, index))
            self.progress.parts_done += 1
        return True

    def _results(self, step: int) -> dict[str, JsonValue]:
        """Return the figures that stand for the run: held-out ones of the policy, training means beside them."""
        training = self.progress.epoch_means.means()
        return {"step": step, "held_out": self.state.held_out or None, "training": training or None}

    def _summarise(self) -> dict[str, JsonValue]:
        validation = self.validation
        if validation is None or isinstance(self.context.objective, UnpairedObjective):
            return {}
        rewards, seed = self.state.validation_rewards, self.context.plan.seed
        return {"held_out": describe_held_out(validation.data, rewards, validation.reference, seed)}

    def _report(self) -> Path:
        context = self.context
        order = epoch_permutation(len(context.train), context.plan.seed, Stage.DPO, 0)
        splits = [SplitReport("train", context.train, self.train_rewards, self.train.reference, order)]
        if (validation := self.validation) is not None:
            rewards = self.state.validation_rewards
            splits.append(SplitReport("validation", validation.data, rewards, validation.reference))
        path = context.work_dir / PAIRS_FILE
        if context.ranks.is_leader:
            write_pair_report(path, splits)
        return path


def _insist(loop: TrainingLoop, work: Callable[[], bool]) -> None:
    """Repeat `work` until it is done; a stop that interrupted it is carried out, unless it is `save`."""
    while not work():
        loop.stop_if_requested()
