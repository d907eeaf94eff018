"""Exact duplicates, reversed pairs and repeated values over any number of rows, found from fingerprints on disk.

The rows are gone through a few times, each time looking at those whose key falls into one part of the key space, so
that what must be remembered fits into memory however many rows there are and however many are equal.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from core.datasets.rows.fingerprints import FINGERPRINT

Rows = npt.NDArray[np.void]
Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_CHUNK_ROWS: Final = 1 << 19
_PART_ROWS: Final = 1 << 20
"""Keys remembered at once."""
_MIX_FIRST: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_SECOND: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_ONE: Final = np.uint64(1)


class Repetition(NamedTuple):
    """A row and the earlier row it repeats or reverses, by their indices among the accepted rows."""

    place: int
    earlier: int


@dataclass(frozen=True, kw_only=True)
class PairFindings:
    num_duplicates: int
    num_reversed: int
    duplicates: list[Repetition]
    """The first ones, in the order of the file."""
    reversals: list[Repetition]


@dataclass(frozen=True, kw_only=True)
class ValueFindings:
    """Repeated values of one field."""

    num_distinct: int
    most: int
    """Rows with the most frequent value."""
    frequent: list[tuple[int, int]]
    """(rows, place of the first) of the values that at least `min_rows` rows have, the most frequent first."""


def _chunks(rows: Rows) -> Iterator[tuple[int, Rows]]:
    for begin in range(0, len(rows), _CHUNK_ROWS):
        yield begin, np.asarray(rows[begin : begin + _CHUNK_ROWS])


def _parts(num_rows: int) -> int:
    return max(1, -(-num_rows // _PART_ROWS))


def _in_part(keys: Keys, part: int, num_parts: int) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (keys >> np.uint64(40)) % np.uint64(num_parts) == part
    return inside


class _Seen:
    """Keys with the index of their first row and how many rows have them, sorted by key."""

    def __init__(self) -> None:
        self.keys: Keys = np.empty(0, np.uint64)
        self.places: Places = np.empty(0, np.int64)
        self.counts: Places = np.empty(0, np.int64)

    def add(self, keys: Keys, places: Places) -> None:
        """Add keys; `places` ascend, and are later than all those seen."""
        distinct, first, counts = np.unique(keys, return_index=True, return_counts=True)
        at, is_known = self._find(distinct)
        self.counts[at[is_known]] += counts[is_known]
        new = ~is_known
        merged = np.concatenate((self.keys, distinct[new]))
        order = np.argsort(merged, kind="stable")
        self.keys = merged[order]
        self.places = np.concatenate((self.places, places[first[new]]))[order]
        self.counts = np.concatenate((self.counts, counts[new]))[order]

    def first_places(self, keys: Keys) -> Places:
        """Return the index of each key's first row, -1 for unseen keys."""
        at, is_known = self._find(keys)
        found = np.full(len(keys), -1, np.int64)
        found[is_known] = self.places[at[is_known]]
        return found

    def _find(self, keys: Keys) -> tuple[Places, npt.NDArray[np.bool_]]:
        at = np.searchsorted(self.keys, keys)
        inside = at < len(self.keys)
        is_known = np.zeros(len(keys), np.bool_)
        is_known[inside] = self.keys[at[inside]] == keys[inside]
        return at, is_known


def pair_keys(rows: Rows) -> Keys:
    """Return keys that are equal for equal rows, and differ only in the last bit for a pair and its reverse."""
    first, second = rows["first"], rows["second"]
    lesser, greater = np.minimum(first, second), np.maximum(first, second)
    mixed = (rows["prompt"] + lesser * _MIX_FIRST) * _MIX_SECOND ^ greater * _MIX_FIRST
    mixed ^= mixed >> np.uint64(31)
    keys: Keys = mixed & ~_ONE | (first < second)
    return keys


def find_repeated_pairs(rows: Rows, max_listed: int) -> PairFindings:
    duplicates: _Listed = _Listed(max_listed)
    reversals: _Listed = _Listed(max_listed)
    num_parts = _parts(len(rows))
    for part in range(num_parts):
        if _are_distinct(_keys_of_part(rows, part, num_parts, pair_keys) | _ONE):
            continue  # as in most files, and found out in a fraction of the time
        seen = _Seen()
        for begin, chunk in _chunks(rows):
            keys = pair_keys(chunk)
            chosen = _in_part(keys, part, num_parts)
            keys, places = keys[chosen], np.flatnonzero(chosen) + begin
            seen.add(keys, places)
            first = seen.first_places(keys)
            is_first = first == places
            duplicates.add(places[~is_first], first[~is_first])
            opposite = seen.first_places(keys[is_first] ^ _ONE)
            is_reversed = (opposite >= 0) & (opposite < places[is_first])
            reversals.add(places[is_first][is_reversed], opposite[is_reversed])
    return PairFindings(
        num_duplicates=duplicates.total,
        num_reversed=reversals.total,
        duplicates=duplicates.repetitions(),
        reversals=reversals.repetitions(),
    )


class _Listed:
    """Counts all findings and keeps the earliest `max_listed`."""

    def __init__(self, max_listed: int) -> None:
        self.total = 0
        self._max = max_listed
        self._places: Places = np.empty(0, np.int64)
        self._earlier: Places = np.empty(0, np.int64)

    def add(self, places: Places, earlier: Places) -> None:
        self.total += len(places)
        merged = np.concatenate((self._places, places))
        order = np.argsort(merged, kind="stable")[: self._max]
        self._places = merged[order]
        self._earlier = np.concatenate((self._earlier, earlier))[order]

    def repetitions(self) -> list[Repetition]:
        return [Repetition(*found) for found in zip(self._places.tolist(), self._earlier.tolist(), strict=True)]


def count_values(rows: Rows, name: Literal["prompt", "first", "second"], min_rows: int) -> ValueFindings:
    num_distinct, most = 0, 0
    frequent: list[tuple[int, int]] = []
    num_parts = _parts(len(rows))
    for part in range(num_parts):
        keys = np.sort(_keys_of_part(rows, part, num_parts, itemgetter(name)))
        begins = np.flatnonzero(_differ_from_last(keys))
        counts = np.diff(begins, append=len(keys))
        num_distinct += len(begins)
        most = max(most, int(counts.max(initial=0)))
        often = counts >= min_rows
        places = [_first_place(rows, name, key) for key in keys[begins[often]]]
        frequent += zip(counts[often].tolist(), places, strict=True)
    return ValueFindings(
        num_distinct=num_distinct,
        most=most,
        frequent=sorted(frequent, key=lambda found: (-found[0], found[1])),
    )


def _keys_of_part(rows: Rows, part: int, num_parts: int, keys_of: Callable[[Rows], Keys]) -> Keys:
    """Return keys in the order of the rows."""
    found = []
    for _, chunk in _chunks(rows):
        keys = keys_of(chunk)
        found.append(keys[_in_part(keys, part, num_parts)])
    return np.concatenate([np.empty(0, np.uint64), *found])


def _are_distinct(keys: Keys) -> bool:
    return bool(_differ_from_last(np.sort(keys)).all())


def _differ_from_last(keys: Keys) -> npt.NDArray[np.bool_]:
    differ = np.ones(len(keys), np.bool_)
    differ[1:] = keys[1:] != keys[:-1]
    return differ


def _first_place(rows: Rows, name: str, key: np.uint64) -> int:
    return next(begin + int(np.argmax(chunk[name] == key)) for begin, chunk in _chunks(rows) if key in chunk[name])


def load_fingerprints(path: str, num_rows: int) -> Rows:
    """Map the fingerprints into memory without reading them."""
    if num_rows == 0:
        return np.empty(0, FINGERPRINT)
    return np.memmap(path, FINGERPRINT, "r", shape=(num_rows,))
