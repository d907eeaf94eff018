"""The processes of one run, one per device: their work split and their collective operations.

All ranks run the same code on the same plan in lockstep; each computes its share of the micro-batches. What is put
together is moved bit for bit, and what is added up is added in the same order on every rank, so all of them take the
same decisions. Rank 0 leads: it alone talks to the observer and writes what is published. What all ranks read later is
written to the disk of each node by its first rank.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from core.disk_space import is_out_of_space
from core.training.data.columns import Columns
from core.training.data.packing import PackedBatch
from core.training.side_by_side import compute_each

_Result = TypeVar("_Result")


class Turn(NamedTuple):
    """A micro-batch that this rank computes while the other ranks compute theirs."""

    batch: PackedBatch
    counts: bool
    """False: another rank's, computed only because every pass needs all ranks; nothing may come of it."""

    is_last: bool = True
    """Whether it is the last one of the step."""

    def backward(self, loss: Tensor, model: nn.Module) -> None:
        """Accumulate the gradient of the loss; the nodes of a hybrid layout add theirs up after the last one."""
        if isinstance(model, FSDPModule):
            model.set_requires_all_reduce(self.is_last)
        (loss if self.counts else loss * 0.0).backward()  # type: ignore[no-untyped-call]

    def columns(self, found: Columns) -> Columns:
        return found if self.counts else Columns((), found.values[:, :0])


@dataclass(frozen=True)
class Ranks:
    """Collective operations of a run; with a single rank each does its work without communication."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Rank among those of this node, which share a disk."""
    local_size: int = 0
    """Ranks of each node; 0: all are of one."""

    @property
    def is_leader(self) -> bool:
        return self.rank == 0

    @property
    def is_node_leader(self) -> bool:
        """Whether it writes what all ranks of its node read."""
        return self.local_rank == 0

    @property
    def num_nodes(self) -> int:
        return self.size // (self.local_size or self.size)

    def turns(self, batches: Sequence[PackedBatch]) -> list[Turn]:
        """Yield this rank's micro-batches, as many as every other rank has."""
        starts = range(0, len(batches), self.size)
        mine = [start + self.rank for start in starts]
        last = mine[-1] if mine else None
        return [Turn(batches[min(index, len(batches) - 1)], index < len(batches), index == last) for index in mine]

    def each(
        self,
        batches: Sequence[PackedBatch],
        work: Callable[[Turn], _Result],
        runs_apart: Callable[[PackedBatch], bool],
    ) -> list[_Result]:
        """Compute `work` of this rank's micro-batches; a rank alone on a CPU, of several at a time.

        Args:
            runs_apart: tells those that no other may run beside.
        """
        turns = self.turns(batches)
        if self.size > 1:
            return [work(turn) for turn in turns]
        return compute_each(batches, lambda number: work(turns[number]), runs_apart)

    def compute(
        self,
        batches: Sequence[PackedBatch],
        work: Callable[[PackedBatch], Tensor],
        size: Callable[[PackedBatch], int],
        runs_apart: Callable[[PackedBatch], bool],
    ) -> list[Tensor]:
        """Compute `work` of every micro-batch, each on one rank, and share the results. Without gradients.

        Args:
            work: gives float32 [size(batch)].
        """
        if self.size == 1:
            return self.each(batches, lambda turn: work(turn.batch), runs_apart)
        sizes = [size(batch) for batch in batches]
        whole = torch.zeros(sum(sizes), device=batches[0].input_ids.device)
        parts = list(torch.split(whole, sizes))
        for number, turn in enumerate(self.turns(batches)):
            found = work(turn.batch)
            if turn.counts:
                parts[number * self.size + self.rank].copy_(found)
        self.merge(whole)
        return parts

    def compute_columns(
        self,
        batches: Sequence[PackedBatch],
        values: Callable[[PackedBatch], Tensor],
        width: int,
        runs_apart: Callable[[PackedBatch], bool],
    ) -> Columns:
        """Compute the `values` of all rows of the batches, float32 [width, B] of each. Without gradients."""
        tables = self.compute(
            batches, lambda batch: values(batch).flatten(), lambda batch: width * len(batch.indices), runs_apart
        )
        rows = tuple(row for batch in batches for row in batch.indices)
        return Columns(rows, torch.cat([table.view(width, -1) for table in tables], dim=1))

    def join_columns(self, parts: Sequence[Columns], order: Sequence[int]) -> Sequence[Columns]:
        """Gather the columns of all ranks, in the rows' order."""
        if self.size == 1:
            return parts
        whole = parts[0].values.new_zeros(len(parts[0].values), len(order))
        places = {row: place for place, row in enumerate(order)}
        for part in parts:
            whole[:, [places[row] for row in part.rows]] = part.values
        return [Columns(tuple(order), self.merge(whole))]

    def merge(self, tensor: Tensor) -> Tensor:
        """Merge in place tensors that are 0 on all ranks but one; float32 bit for bit, be it -0, NaN or infinite."""
        if self.size > 1:
            dist.all_reduce(tensor.view(torch.int32) if tensor.dtype == torch.float32 else tensor)
        return tensor

    def add(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def from_leader(self, number: int) -> int:
        """Broadcast the leader's number."""
        if self.size == 1:
            return number
        told = torch.tensor([number])
        dist.broadcast(told, src=0)
        return int(told)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Fail with an error of the operating system on all ranks if one does inside; all leave together."""
        found: OSError | SafetensorError | None = None
        try:
            yield
        except (OSError, SafetensorError) as error:  # safetensors tells of a full disk in words of its own
            found = error
        number = 0 if found is None else errno.ENOSPC if is_out_of_space(found) else errno.EIO
        if self.size > 1:
            worst = torch.tensor([number])
            dist.all_reduce(worst, dist.ReduceOp.MAX)
            number = int(worst)
        if found is not None:
            raise found
        if number:
            raise OSError(number, os.strerror(number))

    def wait(self) -> None:
        """Wait until all ranks arrive here."""
        self.add(torch.zeros(1))


ALONE = Ranks()
