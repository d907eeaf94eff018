"""Near-duplicate rows: candidates by locality-sensitive hashing of sketches, each then compared in full.

Sketches of 16 minima are cut into 4 bands of 4 (Broder 1997; Indyk and Motwani 1998): two rows whose shingle sets
have the Jaccard similarity s share a band with probability 1 - (1 - s^4)^4, which is 0.99 at 0.9 and 0.06 at 0.35. A
candidate is compared with the earliest row of its band only, so the work grows with the rows, not with their pairs.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
import orjson

from core.datasets.lint.duplicates import Repetition
from core.datasets.rows.contents import content_of
from core.datasets.rows.fingerprints import NUM_MINIMA

_BAND: Final = 4
_MIN_EQUAL_MINIMA: Final = 9
_MIN_SIMILARITY: Final = 0.8
_MAX_COMPARED: Final = 50_000
_MAX_CHARS: Final = 4_000
_WORD: Final = re.compile(r"\w+")
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_FIELDS: Final = ("prompt", "chosen", "rejected", "response")


def find_near_duplicates(
    sketches: npt.NDArray[np.uint32], offsets: Sequence[int], rows_file: BinaryIO, is_duplicate: set[int]
) -> list[Repetition]:
    """Return each row that nearly repeats an earlier one, once. `offsets`: where rows begin in `rows_file`.

    Rows in `is_duplicate` are left out: they repeat an earlier row exactly.
    """
    found: dict[int, int] = {}
    for place, earlier in _candidates(sketches)[:_MAX_COMPARED]:
        if place in found or place in is_duplicate:
            continue
        if _are_similar(_read_row(rows_file, offsets[place]), _read_row(rows_file, offsets[earlier])):
            found[place] = earlier
    return [Repetition(place, earlier) for place, earlier in sorted(found.items())]


def _candidates(sketches: npt.NDArray[np.uint32]) -> list[Repetition]:
    """Pair each row with the earliest ones that share a band, without those whose sketches differ too much."""
    pairs = []
    for begin in range(0, NUM_MINIMA, _BAND):
        halves = np.ascontiguousarray(sketches[:, begin : begin + _BAND]).view(np.uint64)
        band = halves[:, 0] * _MIX ^ halves[:, 1]  # who shares it by chance is told apart below
        _, first, inverse = np.unique(band, return_index=True, return_inverse=True)
        earliest = first[inverse]
        later = np.flatnonzero(earliest != np.arange(len(band)))
        pairs.append(np.stack((later, earliest[later]), axis=1))
    distinct = np.unique(np.concatenate(pairs), axis=0)
    equal = (sketches[distinct[:, 0]] == sketches[distinct[:, 1]]).sum(axis=1)
    return [Repetition(*pair) for pair in distinct[equal >= _MIN_EQUAL_MINIMA].tolist()]


def _read_row(file: BinaryIO, offset: int) -> dict[str, str]:
    file.seek(offset)
    row = orjson.loads(file.readline())
    return {name: content_of(row[name])[:_MAX_CHARS] for name in _FIELDS if name in row}


def _are_similar(row: dict[str, str], other: dict[str, str]) -> bool:
    """Whether every field is similar: the same long prompt with other answers is no near-duplicate."""
    return all(similarity(text, other[name]) >= _MIN_SIMILARITY for name, text in row.items())


def similarity(first: str, second: str) -> float:
    """Share of word pairs (of letter triples, where there are few words) that both texts have."""
    if first == second:
        return 1.0
    shingles, others = _shingles(first), _shingles(second)
    union = len(shingles | others)
    return len(shingles & others) / union if union else 1.0


def _shingles(text: str) -> set[tuple[str, ...]]:
    text = text.lower()
    words = _WORD.findall(text)
    if len(words) >= 8:
        return set(pairwise(words))
    letters = "".join(words)
    return {tuple(letters[index : index + 3]) for index in range(max(1, len(letters) - 2))}
