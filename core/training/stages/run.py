"""The state of one training stage: what its loop works on, and its conversion to and from a checkpoint."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from core.training.checkpoints.files import Checkpoint, copy_exactly
from core.training.checkpoints.writer import Snapshot
from core.training.data.columns import HostColumns, to_host
from core.training.data.order import Cursor, DataOrder
from core.training.data.token_budget import TokenBudget
from core.training.failures import BadCheckpoint
from core.training.measures.final_figures import EpochMeans
from core.training.observer import JsonValue, Observer
from core.training.plan import SftPlan
from core.training.ranks import ALONE, Ranks
from core.training.seeding import capture_rng, restore_rng
from core.training.stages.best_weights import BestWeights
from core.training.steps.figures import Figures
from core.training.steps.optimizer import MasterOptimizer
from core.training.steps.task import StageTask


class LoopEnd(StrEnum):
    FINISHED = "finished"
    SAVED = "saved"
    """The observer asked to end here and finish with the policy as it is."""


@dataclass
class LoopProgress:
    """State that changes from step to step besides tensors; plain values, so that checkpoints can hold it."""

    step: int = 0
    """Updates done."""
    cursor: Cursor = field(default_factory=Cursor)
    evaluated_step: int = -1
    evaluation: Figures = field(default_factory=dict)
    """Figures at `evaluated_step`."""
    best: float | None = None
    """Best value of early stopping's metric."""
    num_without_improvement: int = 0
    best_step: int | None = None
    """Step of the best evaluation, whose weights are kept; None: none is, or they are not asked for."""
    best_value: float | None = None
    """Value of the metric of early stopping at that step."""
    is_best_restored: bool = False
    """Whether the weights are those of `best_step` again."""
    epoch_means: EpochMeans = field(default_factory=EpochMeans)
    parts_done: int = 0
    """Parts of the evaluation stage after the last step that a resume need not do again."""
    end: LoopEnd | None = None

    @property
    def needs_best(self) -> bool:
        """Whether a checkpoint must hold the best weights beside the current ones."""
        return self.best_step not in (None, self.step) and not self.is_best_restored

    def facts(self) -> dict[str, JsonValue]:
        return {
            "evaluated_step": self.evaluated_step,
            "evaluation": self.evaluation,
            "best": self.best,
            "num_without_improvement": self.num_without_improvement,
            "best_step": self.best_step,
            "best_value": self.best_value,
            "is_best_restored": self.is_best_restored,
            "epoch_means": self.epoch_means.facts(),
            "parts_done": self.parts_done,
            "end": None if self.end is None else self.end.value,
        }

    def restore(self, step: int, cursor: Cursor, facts: Mapping[str, Any]) -> None:
        self.step, self.cursor = step, cursor
        self.evaluated_step, self.evaluation = facts["evaluated_step"], dict(facts["evaluation"])
        self.best, self.num_without_improvement = facts["best"], facts["num_without_improvement"]
        self.best_step, self.best_value = facts.get("best_step"), facts.get("best_value")
        self.is_best_restored = facts.get("is_best_restored", False)
        self.epoch_means.restore(facts.get("epoch_means", {}))
        self.parts_done = facts["parts_done"]
        self.end = None if facts["end"] is None else LoopEnd(facts["end"])


class KeptState(Protocol):
    """Plain values that the checkpoints of a stage carry besides its progress."""

    def facts(self) -> dict[str, JsonValue]: ...

    def restore(self, facts: Mapping[str, Any]) -> None: ...


@dataclass(kw_only=True)
class StageRun:
    """Task, weights, order and progress of one stage."""

    task: StageTask
    plan: SftPlan
    optimizer: MasterOptimizer
    order: DataOrder
    budget: TokenBudget
    device: torch.device
    kept_tensors: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """What checkpoints carry besides: the reference."""
    kept_state: KeptState | None = None
    """The same, plain values: the results of evaluations."""
    progress: LoopProgress = field(default_factory=LoopProgress)
    save_policy: Callable[[Path], None] | None = None
    """Function for `Snapshot`."""
    sft_dir: Path | None = None
    """The SFT policy that the stage began with."""
    best: BestWeights | None = None
    """None: the last policy is the result."""
    ranks: Ranks = ALONE

    def compute_gradients(self, rows: Sequence[int], observer: Observer) -> tuple[HostColumns, int]:
        """Compute gradients of one step; return its values on the host, with the gradient's norm, and its tokens."""
        rng = capture_rng(self.device)

        def compute() -> tuple[HostColumns, int]:
            restore_rng(rng, self.device)  # a second try draws the same dropout
            if self.ranks.size > 1:  # each rank its own, which no checkpoint needs to keep
                torch.manual_seed(self.order.seed_of("dropout", self.progress.step, self.ranks.rank))
            self.optimizer.clear_gradients()
            batches = self.task.pack(rows, self.budget.tokens)
            columns = self.ranks.join_columns(self.task.backward(batches), rows)
            return to_host(columns, rows, self.optimizer.grad_norm()), sum(batch.num_tokens for batch in batches)

        return self.budget.run(compute, observer, self.task.stage)

    def snapshot(self) -> Snapshot:
        groups: dict[str, Mapping[str, Tensor]] = {
            "policy": self.optimizer.parts(self.optimizer.masters),
            "optimizer": self.optimizer.parts(self.optimizer.state()),
            "rng": capture_rng(self.device),
            **self.kept_tensors,
        }
        if kept := self.task.state():
            groups["pairs"] = kept
        if self.best is not None and self.progress.needs_best:
            groups["best"] = self.optimizer.parts(self.best.read())
        return Snapshot(
            stage=self.task.stage,
            step=self.progress.step,
            cursor=self.progress.cursor,
            micro_batch_tokens=self.budget.tokens,
            facts={**(self.kept_state.facts() if self.kept_state else {}), **self.progress.facts()},
            tensors=groups,
            policy_dir=self.sft_dir,
            save_policy=self.save_policy,
        )

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore everything from the checkpoint, what is kept besides included.

        Raises:
            BadCheckpoint: something is missing, left over or of another shape.
        """
        expected = {"policy", "optimizer", "rng", *self.kept_tensors, *(["pairs"] if self.task.state() else [])}
        if checkpoint.groups - {"best"} != expected:
            raise BadCheckpoint("The checkpoint holds other parts than this stage does.")
        groups = {name: dict(tensors) for name, tensors in checkpoint.tensors.items()}
        for group, own in (("policy", self.optimizer.masters), ("optimizer", self.optimizer.state())):
            checkpoint.load_weights(group, self.optimizer.parts(own), group, self.ranks)
        for name, tensors in self.kept_tensors.items():
            copy_exactly(tensors, groups[name], name)
        if "pairs" in groups:
            copy_exactly(self.task.state(), groups["pairs"], "table of pairs")
        self.optimizer.num_updates = checkpoint.step
        self.optimizer.refresh()
        try:
            self.progress.restore(checkpoint.step, checkpoint.cursor, checkpoint.facts)
            if self.kept_state is not None:
                self.kept_state.restore(checkpoint.facts)
            restore_rng(groups["rng"], self.device)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise BadCheckpoint("The checkpoint is damaged. Resume from an older one.") from error
        self._restore_best(checkpoint)

    def _restore_best(self, checkpoint: Checkpoint) -> None:
        if self.best is None or self.progress.best_step is None:
            return
        has_best = "best" in checkpoint.groups
        if self.progress.needs_best != has_best:
            raise BadCheckpoint("The checkpoint lacks the weights of the best evaluation.")
        if has_best:
            self.best.take(checkpoint)
        else:
            self.best.keep()
