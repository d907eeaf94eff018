"""Order of training rows: a permutation per epoch from (seed, stage, epoch), and a cursor into it.

A resumed run continues at its cursor; nothing is skipped over batch by batch. Length plays no part in the order:
micro-batches group rows of one step only, so the shuffle stays fair.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.training.observer import Stage
from core.training.seeding import derive_seed

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """Position in the data order where the next step begins."""

    epoch: int = 0
    position: int = 0
    """Rows of the epoch's permutation already taken, less than all of them."""


def epoch_permutation(num_rows: int, seed: int, stage: Stage, epoch: int) -> Rows:
    """Return every row's index exactly once in the epoch's random order, [N].

    Ranks raw 64-bit draws instead of calling numpy's shuffle, whose order may change between versions.
    """
    bits = np.random.PCG64(derive_seed(seed, "order", stage.value, epoch))
    return np.argsort(bits.random_raw(num_rows), kind="stable")


def partners(num_rows: int, seed: int) -> Rows:
    """Return another row for every row, [N]; all rows form one cycle, so each is the partner of exactly one.

    A single row is its own partner.
    """
    bits = np.random.PCG64(derive_seed(seed, "partners"))
    cycle = np.argsort(bits.random_raw(num_rows), kind="stable")
    found = np.empty_like(cycle)
    found[cycle] = np.roll(cycle, -1)
    return found


class DataOrder:
    """The rows of each step of one stage; the last step of an epoch may have fewer than `batch_size` rows."""

    def __init__(self, num_rows: int, batch_size: int, epochs: int, *, seed: int, stage: Stage) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.epochs = epochs
        self._seed = seed
        self._stage = stage
        self._permutation: tuple[int, Rows] | None = None

    def seed_of(self, *purpose: str | int) -> int:
        """Derive a seed of this stage for a purpose other than its order."""
        return derive_seed(self._seed, self._stage.value, *purpose)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_rows / self.batch_size)

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def rows_at(self, cursor: Cursor) -> list[int]:
        """Return the rows of the step that begins at the cursor."""
        permutation = self._epoch(cursor.epoch)
        return [int(row) for row in permutation[cursor.position : cursor.position + self.batch_size]]

    def after(self, cursor: Cursor) -> Cursor:
        """Return the cursor of the following step."""
        position = cursor.position + self.batch_size
        if position >= self.num_rows:
            return Cursor(epoch=cursor.epoch + 1)
        return Cursor(epoch=cursor.epoch, position=position)

    def epochs_done(self, cursor: Cursor) -> float:
        """Return the epochs done, as metric points count them: 1.5 is half way through the second."""
        return cursor.epoch + cursor.position / self.num_rows

    def _epoch(self, epoch: int) -> Rows:
        if self._permutation is None or self._permutation[0] != epoch:
            self._permutation = epoch, epoch_permutation(self.num_rows, self._seed, self._stage, epoch)
        return self._permutation[1]
