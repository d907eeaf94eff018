"""Evaluation on pairs, whatever gives them their rewards: a table of held-out pairs, and a report on every pair."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from core.domain.training.artifact_files import PAIRS_FILE
from core.training.data.order import epoch_permutation
from core.training.measures.held_out import describe_held_out
from core.training.measures.pair_report import SplitReport, write_pair_report
from core.training.observer import JsonValue, Stage
from core.training.stages.evaluation import Evaluation, EvaluationState
from core.training.steps.pair_table import PairTable
from core.training.steps.task import SplitForward


@dataclass
class PairState(EvaluationState):
    """Rewards of held-out pairs, besides what every stage keeps."""

    validation_rewards: PairTable

    def tensors(self) -> dict[str, Tensor]:
        return self.validation_rewards.state()


@dataclass(kw_only=True)
class PairEvaluation(Evaluation):
    """Evaluates one run of a stage that trains on pairs."""

    train: SplitForward
    validation: SplitForward | None
    train_rewards: PairTable
    known: PairState

    @property
    def state(self) -> PairState:
        return self.known

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

    def summarise(self) -> Mapping[str, JsonValue]:
        if (validation := self.validation) is None:
            return {}
        rewards, seed = self.known.validation_rewards, self.context.plan.seed
        return {"held_out": describe_held_out(validation.data, rewards, validation.reference, seed)}

    def write_report(self) -> Path:
        context = self.context
        order = epoch_permutation(len(context.train), context.plan.seed, self.stage, 0)
        splits = [SplitReport("train", context.train, self.train_rewards, self.train.reference, order)]
        if (validation := self.validation) is not None:
            rewards = self.known.validation_rewards
            splits.append(SplitReport("validation", validation.data, rewards, validation.reference))
        path = context.work_dir / PAIRS_FILE
        if context.ranks.is_leader:
            write_pair_report(path, splits)
        return path
