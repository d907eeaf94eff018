"""Common beginnings of token sequences: which sequence shares how many first tokens with which, and what that saves.

Sequences in lexicographic order make a prefix tree: what two of them share is the least that any two neighbours
between them share (Kasai et al. 2001, of suffixes).
"""

from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from core.domain.training.sharing import MIN_SHARED_TOKENS

Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Shared:
    """A beginning that a sequence has in common with an earlier one."""

    source: int
    """Number of the earlier sequence."""
    length: int
    """Tokens in common, at least `MIN_SHARED_TOKENS`."""


@dataclass(frozen=True)
class Added:
    """Cost of sequences beside others."""

    tokens: int
    """Tokens to compute: each common beginning once."""
    keys: int
    """Keys that these tokens attend to: the whole of each sequence with a token to compute."""


class PrefixOrder:
    """Token sequences in lexicographic order, with the number of first tokens that neighbours have in common."""

    def __init__(self, sequences: Sequence[Tokens]) -> None:
        self._lengths = [len(sequence) for sequence in sequences]
        keys = [sequence.astype(">i4").tobytes() for sequence in sequences]
        self._order = sorted(range(len(sequences)), key=keys.__getitem__)
        self._place = [0] * len(sequences)
        for place, number in enumerate(self._order):
            self._place[number] = place
        common = [_common(sequences[a], sequences[b]) for a, b in pairwise(self._order)]
        self._common = np.where(np.asarray(common, np.int64) < MIN_SHARED_TOKENS, 0, np.asarray(common, np.int64))
        """[N - 1] of each place and the next; 0 where it is too little to share."""

    def shared(self) -> list[Shared | None]:
        """Return for each sequence the earlier one that it shares most with, or None."""
        return [self._most_shared(number) for number in range(len(self._lengths))]

    def is_alone(self, numbers: Sequence[int]) -> bool:
        """Whether these sequences share nothing with any other."""
        own = {self._place[number] for number in numbers}
        for place in own:
            if place and self._common[place - 1] and place - 1 not in own:
                return False
            if place < len(self._common) and self._common[place] and place + 1 not in own:
                return False
        return True

    def added(self, numbers: Iterable[int], places: Sequence[int] = ()) -> "Added":
        """Return what it takes to compute these sequences beside others that are computed anyway.

        Args:
            places: of the others, ascending, as `places` returns them.
        """
        present = list(places)
        tokens = keys = 0
        for number in numbers:
            place = self._place[number]
            at = bisect(present, place)
            before = self._between(present[at - 1], place) if at else 0
            after = self._between(place, present[at]) if at < len(present) else 0
            if new := self._lengths[number] - max(before, after):
                tokens += new
                keys += self._lengths[number]
            present.insert(at, place)
        return Added(tokens, keys)

    def places(self, numbers: Iterable[int]) -> list[int]:
        """Return where sequences stand in the order."""
        return [self._place[number] for number in numbers]

    def _between(self, first: int, second: int) -> int:
        """Return the tokens that the sequences at two places, in order, have in common."""
        if first == second:
            return self._lengths[self._order[first]]
        return int(self._common[first:second].min())

    def _most_shared(self, number: int) -> Shared | None:
        best: Shared | None = None
        for step in (-1, 1):
            other, length = self._place[number], self._lengths[number]
            while 0 <= other + step < len(self._order):
                length = min(length, int(self._common[min(other, other + step)]))
                if length < (best.length + 1 if best is not None else MIN_SHARED_TOKENS):
                    break
                other += step
                if self._order[other] < number:
                    best = Shared(self._order[other], length)
                    break
        return best


def _common(first: Tokens, second: Tokens) -> int:
    """Return the number of first tokens that two sequences have in common."""
    length = min(len(first), len(second))
    different = np.flatnonzero(first[:length] != second[:length])
    return int(different[0]) if len(different) else length
