"""The reference of DPO: log-probabilities of every pair under the policy before DPO, computed once.

The pass uses the very batches of DPO's first epoch, cut into the same micro-batches: rounding depends on what runs
together, so this makes the rewards of the first step exactly 0 in float32, and not nearly 0. The result is kept per
token beside the sums, and never computed again in a run, whatever is resumed.

Legend: N rows of a split, S scored tokens of the split.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.disk_space import room_for
from core.training.checkpoints.tensor_files import UnreadableTensors, complete_directory, read_tensors, write_tensors
from core.training.data.packing import PACKING_VERSION, PackedBatch
from core.training.data.texts import SIDES
from core.training.failures import BadStageOutput
from core.training.losses.values import PairLogps, ResponseLogps

VERSION = 1
META_FILE = "reference.json"
TENSORS_FILE = "reference.safetensors"

TRAIN, VALIDATION = "train", "validation"


@dataclass(frozen=True)
class SplitLogps:
    """The reference's log-probabilities of one split, on the host.

    Column 0 is the chosen response, 1 the rejected; of unpaired rows 0 the row's own, 1 its partner's.
    """

    sums: NDArray[np.float32]
    """[N, 2]"""
    prefix_sums: NDArray[np.float32]
    """[N, 2] over the first min(|y_w|, |y_l|) scored tokens."""

    @classmethod
    def unknown(cls, num_rows: int) -> "SplitLogps":
        """Return values that are NaN everywhere."""
        return cls(*(np.full((num_rows, 2), np.nan, np.float32) for _ in range(2)))

    def of(self, batch: PackedBatch) -> PairLogps:
        """Return the pairs of a batch, on its device."""
        rows = list(batch.indices)
        stacked = torch.from_numpy(np.stack((self.sums[rows], self.prefix_sums[rows])))
        device = batch.input_ids.device
        if device.type == "cuda":
            stacked = stacked.pin_memory()
        (chosen_sums, rejected_sums), (chosen_prefix, rejected_prefix) = (
            table.unbind(1) for table in stacked.to(device, non_blocking=True)
        )
        chosen_counts, rejected_counts = batch.num_scored_tokens.chunk(2)
        return PairLogps(
            ResponseLogps(chosen_sums, chosen_counts, chosen_prefix),
            ResponseLogps(rejected_sums, rejected_counts, rejected_prefix),
        )

    def of_responses(self, batch: PackedBatch) -> Tensor:
        """Sums of a batch of single responses, chosen or rejected ones, on its device, [B]."""
        assert batch.side is not None
        sums = torch.from_numpy(self.sums[list(batch.indices), SIDES.index(batch.side)])
        return sums.to(batch.input_ids.device)


@dataclass(frozen=True)
class ReferenceLogps:
    """Log-probabilities of training and validation split."""

    train: SplitLogps
    validation: SplitLogps | None

    def tensors(self) -> dict[str, Tensor]:
        """Return sums without the single tokens, as DPO's checkpoints keep them; memory is shared with this object."""
        found = {}
        for name, split in ((TRAIN, self.train), (VALIDATION, self.validation)):
            if split is not None:
                found[f"{name}.sums"] = torch.from_numpy(split.sums)
                found[f"{name}.prefix_sums"] = torch.from_numpy(split.prefix_sums)
        return found

    @classmethod
    def unknown(cls, num_train: int, num_validation: int | None) -> "ReferenceLogps":
        """Return values that are NaN everywhere, to be filled."""
        validation = None if num_validation is None else SplitLogps.unknown(num_validation)
        return cls(SplitLogps.unknown(num_train), validation)

    def is_complete(self) -> bool:
        """Whether every value is a number."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors().values())


def save_reference(directory: Path, digest: str, tensors: dict[str, Tensor], data_digests: dict[str, str]) -> None:
    """Save the stage's output: `tensors` as `ReferencePass.tensors` returns them."""
    with room_for("the reference's log-probabilities"), complete_directory(directory) as hidden:
        write_tensors(hidden / TENSORS_FILE, tensors)
        meta = {
            "version": VERSION,
            "digest": digest,
            "packing": PACKING_VERSION,
            "data": data_digests,
            "num_rows": {name: len(tensors[f"{name}.sums"]) for name in data_digests},
            "sha256": _sha256(hidden / TENSORS_FILE),
        }
        (hidden / META_FILE).write_text(json.dumps(meta, sort_keys=True, indent=1) + "\n", encoding="utf-8")


def load_reference(directory: Path, digest: str, into: ReferenceLogps) -> None:
    """Load the sums of a finished reference stage.

    Raises:
        BadStageOutput: damaged, incomplete, or computed for another policy, other data or other batches.
    """
    try:
        meta = json.loads((directory / META_FILE).read_text(encoding="utf-8"))
        is_intact = meta["version"] == VERSION and meta["sha256"] == _sha256(directory / TENSORS_FILE)
        tensors = read_tensors(directory / TENSORS_FILE)
        found_digest, packing = meta["digest"], meta.get("packing", 1)
    except (OSError, ValueError, KeyError, TypeError, UnreadableTensors) as error:
        raise BadStageOutput("The earlier reference log-probabilities are damaged.") from error
    if not is_intact:
        raise BadStageOutput("The earlier reference log-probabilities are damaged.")
    if found_digest != digest:
        raise BadStageOutput("The earlier reference log-probabilities belong to another policy, data or batches.")
    if packing != PACKING_VERSION:  # its last bits differ: the rewards of the first step would not be exactly 0
        raise BadStageOutput("The earlier reference log-probabilities were computed in another layout of the texts.")
    for name, target in into.tensors().items():
        source = tensors.get(name)
        if source is None or source.shape != target.shape or not source.isfinite().all():
            raise BadStageOutput("The earlier reference log-probabilities are of other rows, or have gaps.")
        target.copy_(source)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
