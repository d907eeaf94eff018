"""Interfaces between the stages and their steps: forward passes, losses, figures of a step."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from core.training.data.columns import Columns, HostColumns, Rewards
from core.training.data.encoded import EncodedData
from core.training.data.packing import PackedBatch
from core.training.observer import Stage, TrainedStage
from core.training.steps.figures import Figures
from core.training.steps.pair_table import PairTable
from core.training.steps.reference_logps import SplitLogps


class StageTask(Protocol):
    """Operations that differ between SFT and DPO."""

    stage: TrainedStage
    data: EncodedData

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        """Pack the rows of one step into micro-batches."""
        ...

    def backward(self, batches: Sequence[PackedBatch]) -> list[Columns]:
        """Accumulate the gradient of the step's loss, and return values of every row; column 0 is its loss."""
        ...

    def figures(self, host: HostColumns) -> Figures: ...

    def weight(self, host: HostColumns) -> float:
        """Return the number of things that the step's figures are means over: rows, or in SFT tokens."""
        ...

    def record(self, host: HostColumns) -> None:
        """Record what the task keeps of single rows."""

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of `record`, for checkpoints; copying into them restores it."""
        ...


class RowForward(Protocol):
    """Forward pass over a split's rows."""

    @property
    def data(self) -> EncodedData: ...

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]: ...

    def columns(self, batches: Sequence[PackedBatch]) -> Columns:
        """Return the values of all rows of the batches; column 0 is the loss."""
        ...

    def figures(self, host: HostColumns) -> Figures: ...


class SplitForward(RowForward, Protocol):
    """Forward pass over a split's pairs or unpaired rows, which gives rewards."""

    @property
    def reference(self) -> SplitLogps | None: ...

    def rewards(self, host: HostColumns) -> Rewards: ...


ForwardT = TypeVar("ForwardT", bound=SplitForward)


class PreferenceTask(Generic[ForwardT]):
    """What all tasks of the preference stage share; they differ in how they go backward."""

    stage: TrainedStage = Stage.DPO

    def __init__(self, forward: ForwardT) -> None:
        self._forward = forward
        self.data = forward.data
        self.rewards = PairTable(len(forward.data))

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        return self._forward.pack(rows, max_tokens)

    def figures(self, host: HostColumns) -> Figures:
        return self._forward.figures(host)

    def weight(self, host: HostColumns) -> float:
        return float(len(host.rows))

    def record(self, host: HostColumns) -> None:
        self.rewards.record(self._forward.rewards(host))

    def state(self) -> dict[str, Tensor]:
        return self.rewards.state()
