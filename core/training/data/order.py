"""Order of training rows: a permutation per epoch from (seed, stage, epoch), and a cursor into it.

A resumed run continues at its cursor; nothing is skipped over batch by batch. Length plays no part in the order:
micro-batches group rows of one step only, so the shuffle stays fair.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.training.data.encoded import EncodedData
from core.training.data.prompt_groups import prompt_groups
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
    """The rows of each step of one stage.

    The last step of an epoch may have fewer than `batch_size` rows. With groups, the rows of a group stand in one
    step, which may end before it is full; a group of more than `batch_size` rows goes over consecutive steps, or is a
    step of its own.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        epochs: int,
        *,
        seed: int,
        stage: Stage,
        groups: Rows | None = None,
        cuts_groups: bool = True,
    ) -> None:
        """Take `groups` as the number of each row's group, [N], from 0 without gaps; None: every row is one.

        Args:
            cuts_groups: whether a group of more than `batch_size` rows goes over several steps.
        """
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.epochs = epochs
        self._seed = seed
        self._stage = stage
        self._groups = groups
        self._cuts_groups = cuts_groups
        self._counts: dict[int, int] = {}
        self._epoch: tuple[int, Rows, Rows] | None = None

    def largest_group(self) -> list[int]:
        """Return the rows of the group with the most rows; none without groups."""
        if self._groups is None:
            return []
        return np.flatnonzero(self._groups == np.bincount(self._groups).argmax()).tolist()

    def seed_of(self, *purpose: str | int) -> int:
        """Derive a seed of this stage for a purpose other than its order."""
        return derive_seed(self._seed, self._stage.value, *purpose)

    def steps_in(self, epoch: int) -> int:
        """Return the number of steps of an epoch."""
        if self._groups is None:
            return math.ceil(self.num_rows / self.batch_size)
        if epoch not in self._counts:
            self._counts[epoch] = len(self._draw(epoch)[1])
        return self._counts[epoch]

    @property
    def total_steps(self) -> int:
        return sum(self.steps_in(epoch) for epoch in range(self.epochs))

    def rows_at(self, cursor: Cursor) -> list[int]:
        """Return the rows of the step that begins at the cursor."""
        rows, _ = self._drawn(cursor.epoch)
        return [int(row) for row in rows[cursor.position : self._end(cursor)]]

    def after(self, cursor: Cursor) -> Cursor:
        """Return the cursor of the following step."""
        position = self._end(cursor)
        if position >= self.num_rows:
            return Cursor(epoch=cursor.epoch + 1)
        return Cursor(epoch=cursor.epoch, position=position)

    def cursor_of(self, step: int) -> Cursor:
        """Return where a step of the first epoch begins."""
        _, starts = self._drawn(0)
        return Cursor(position=int(starts[step]))

    def epochs_done(self, cursor: Cursor) -> float:
        """Return the epochs done, as metric points count them: 1.5 is half way through the second."""
        return cursor.epoch + cursor.position / self.num_rows

    def _end(self, cursor: Cursor) -> int:
        """Return the position where the step that begins at the cursor ends."""
        _, starts = self._drawn(cursor.epoch)
        following = int(np.searchsorted(starts, cursor.position, side="right"))
        return int(starts[following]) if following < len(starts) else self.num_rows

    def _drawn(self, epoch: int) -> tuple[Rows, Rows]:
        """Return an epoch's rows in their order, [N], and where its steps begin; the last epoch asked for is kept."""
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, *self._draw(epoch)
        return self._epoch[1:]

    def _draw(self, epoch: int) -> tuple[Rows, Rows]:
        if self._groups is None:
            rows = epoch_permutation(self.num_rows, self._seed, self._stage, epoch)
            return rows, np.arange(0, self.num_rows, self.batch_size)
        sizes = np.bincount(self._groups)
        order = epoch_permutation(len(sizes), self._seed, self._stage, epoch)
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return np.argsort(places[self._groups], kind="stable"), group_starts(
            sizes[order], self.batch_size, cuts_groups=self._cuts_groups
        )


def row_groups(num_rows: int, group_size: int) -> list[list[int]]:
    """Split rows into groups in order."""
    return [list(range(start, min(start + group_size, num_rows))) for start in range(0, num_rows, group_size)]


def prompt_row_groups(data: EncodedData, group_size: int, *, cuts_groups: bool) -> list[list[int]]:
    """Split rows into groups of whole prompts, wherever their rows stand; a larger prompt is cut, or a group."""
    groups = prompt_groups(data)
    rows = np.argsort(groups, kind="stable")
    starts = group_starts(np.bincount(groups), group_size, cuts_groups=cuts_groups)
    return [part.tolist() for part in np.split(rows, starts[1:])] if len(rows) else []


def group_starts(sizes: Rows, batch_size: int, *, cuts_groups: bool) -> Rows:
    """Return where steps begin that take whole groups of these sizes in order; a larger one is cut, or a step."""
    starts: list[int] = []
    position = room = 0
    for size in sizes.tolist():
        if size > room:
            starts += range(position, position + size, batch_size if cuts_groups else size)
            room = starts[-1] + batch_size - position
        position += size
        room -= size
    return np.asarray(starts, np.int64)
