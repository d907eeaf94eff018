"""Evaluation of the preference stage: rewards of held-out pairs, divergence from the reference, a report on pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from core.domain.training.artifact_files import PAIRS_FILE
from core.training.data.order import epoch_permutation
from core.training.losses.objective import Objective, UnpairedObjective
from core.training.measures.final_figures import held_out_figures
from core.training.measures.held_out import describe_held_out
from core.training.measures.pair_report import SplitReport, write_pair_report
from core.training.measures.reference_kl import SampledKl
from core.training.observer import JsonValue, Stage
from core.training.stages.evaluation import Evaluation, EvaluationState
from core.training.steps.figures import Figures
from core.training.steps.pair_table import PairTable
from core.training.steps.pairs import PairForward, UnmovedForward
from core.training.steps.task import SplitForward


@dataclass
class PreferenceState(EvaluationState):
    """Rewards of held-out pairs and the draws of the divergence, besides what every stage keeps."""

    validation_rewards: PairTable
    sampled_kl: SampledKl

    def tensors(self) -> dict[str, Tensor]:
        return self.validation_rewards.state()

    def facts(self) -> dict[str, JsonValue]:
        return {**super().facts(), "reference_draws": self.sampled_kl.draws}

    def restore(self, facts: Mapping[str, Any]) -> None:
        super().restore(facts)
        self.sampled_kl.draws = list(facts.get("reference_draws", []))  # none in checkpoints of the first release


@dataclass(kw_only=True)
class PreferenceEvaluation(Evaluation):
    """Evaluates one run of the preference stage."""

    objective: Objective | UnpairedObjective
    train: SplitForward
    validation: SplitForward | None
    train_rewards: PairTable
    known: PreferenceState

    @property
    def state(self) -> PreferenceState:
        return self.known

    def begin(self) -> None:
        """Answer the sample prompts, and draw for the divergence, with the policy before its first update."""
        super().begin()
        self.known.sampled_kl.draw(self.model)

    def validate(self) -> Figures | None:
        assert self.validation is not None
        forward = self.validation
        if self.progress.step == 0 and isinstance(forward, PairForward):
            forward = UnmovedForward.of(forward)
        host = self.evaluate_split(forward)
        if host is None:
            return None
        self.known.validation_rewards.record(self.validation.rewards(host))
        is_paired = not isinstance(self.objective, UnpairedObjective)
        self.known.held_out = held_out_figures(host.values, is_paired=is_paired)
        return self.validation.figures(host) | self.known.sampled_kl.figures(self.model)

    def score_training_rows(self) -> bool:
        if not self.context.plan.score_train_rows or self.progress.parts_done:
            return True
        host = self.evaluate_split(self.train)
        if host is None:
            return False
        self.train_rewards.settle(self.train.rewards(host))
        self.progress.parts_done += 1
        self.context.observer.progress(Stage.EVALUATION, 0, 1, None)
        return True

    def summarise(self) -> dict[str, JsonValue]:
        validation = self.validation
        if validation is None or isinstance(self.objective, UnpairedObjective):
            return {}
        rewards, seed = self.known.validation_rewards, self.context.plan.seed
        return {"held_out": describe_held_out(validation.data, rewards, validation.reference, seed)}

    def write_report(self) -> Path:
        context = self.context
        order = epoch_permutation(len(context.train), context.plan.seed, Stage.DPO, 0)
        splits = [SplitReport("train", context.train, self.train_rewards, self.train.reference, order)]
        if (validation := self.validation) is not None:
            rewards = self.known.validation_rewards
            splits.append(SplitReport("validation", validation.data, rewards, validation.reference))
        path = context.work_dir / PAIRS_FILE
        if context.ranks.is_leader:
            write_pair_report(path, splits)
        return path
