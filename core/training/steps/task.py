"""What the training loop asks of a stage: forward passes, losses, figures of a step."""

from collections.abc import Sequence
from typing import Literal, Protocol

from torch import Tensor

from core.training.data.columns import Columns, HostColumns
from core.training.data.encoded import EncodedData
from core.training.data.packing import PackedBatch
from core.training.observer import Stage
from core.training.steps.figures import Figures


class StageTask(Protocol):
    """What differs between SFT and DPO."""

    stage: Literal[Stage.SFT, Stage.DPO]
    data: EncodedData

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        """The rows of one step as micro-batches."""
        ...

    def backward(self, batches: Sequence[PackedBatch]) -> list[Columns]:
        """Adds the gradient of the step's loss, and returns values of every row; column 0 is its loss."""
        ...

    def figures(self, host: HostColumns) -> Figures: ...

    def record(self, host: HostColumns) -> None:
        """Keeps what the task wants to remember of rows."""

    def state(self) -> dict[str, Tensor]:
        """What `record` kept, for checkpoints; copying into these tensors restores it."""
        ...
