"""The weights of a stage's best evaluation, kept on local disk until the stage ends."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.training.checkpoints.files import Checkpoint, copy_exactly
from core.training.checkpoints.tensor_files import read_tensors, write_tensors
from core.training.ranks import Ranks
from core.training.stages.context import RunContext
from core.training.steps.optimizer import MasterOptimizer


@dataclass(frozen=True)
class BestWeights:
    """A file of this rank's float32 masters; the newest one replaces the one before."""

    path: Path
    optimizer: MasterOptimizer
    ranks: Ranks

    def keep(self) -> None:
        """Keep the weights of the moment. Raises OSError: ENOSPC and the like."""
        self._write(self.optimizer.masters)

    def take(self, checkpoint: Checkpoint) -> None:
        """Keep what a checkpoint has. Raises BadCheckpoint, OSError."""
        kept = {name: torch.empty_like(master) for name, master in self.optimizer.masters.items()}
        checkpoint.load_weights("best", self.optimizer.parts(kept), "best policy", self.ranks)
        self._write(kept)

    def read(self) -> dict[str, Tensor]:
        """Return this rank's part of the kept weights, on the device of the masters."""
        masters = self.optimizer.masters
        return {name: tensor.to(masters[name].device) for name, tensor in read_tensors(self.path).items()}

    @torch.no_grad()
    def restore(self) -> None:
        """Make the kept weights those of the model."""
        copy_exactly(self.optimizer.masters, self.read(), "best policy")
        self.optimizer.refresh()

    def _write(self, tensors: dict[str, Tensor]) -> None:
        hidden = self.path.with_suffix(".new")
        write_tensors(hidden, tensors)
        hidden.replace(self.path)


def best_weights(context: RunContext, optimizer: MasterOptimizer) -> BestWeights | None:
    """Return where the last stage's best weights are kept, if early stopping publishes them."""
    stopping = context.plan.last_stage.early_stopping
    if stopping is None or not stopping.restore_best or context.validation is None:
        return None
    return BestWeights(context.work_dir / f"best-{context.ranks.rank}.safetensors", optimizer, context.ranks)
