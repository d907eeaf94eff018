"""Interface between the training loop and a stage: forward passes, losses, figures of a step."""

from collections.abc import Sequence
from typing import Literal, Protocol

from torch import Tensor

from core.training.data.columns import Columns, HostColumns
from core.training.data.encoded import EncodedData
from core.training.data.packing import PackedBatch
from core.training.observer import Stage
from core.training.steps.figures import Figures


class StageTask(Protocol):
    """Operations that differ between SFT and DPO."""

    stage: Literal[Stage.SFT, Stage.DPO]
    data: EncodedData

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        """Pack the rows of one step into micro-batches."""
        ...

    def backward(self, batches: Sequence[PackedBatch]) -> list[Columns]:
        """Accumulate the gradient of the step's loss, and return values of every row; column 0 is its loss."""
        ...

    def figures(self, host: HostColumns) -> Figures: ...

    def record(self, host: HostColumns) -> None:
        """Record what the task keeps of single rows."""

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of `record`, for checkpoints; copying into them restores it."""
        ...
