"""Rows with the same prompt: their groups, and whether a dataset is ranked."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from core.training.data.encoded import EncodedData, EncodedRow

RANKED_SHARE = 0.75
"""A dataset is ranked when its pairs name so few different responses: three answers to a prompt are half as many."""
_NUM_LOOKED_AT = 10_000


def prompt_groups(data: EncodedData) -> NDArray[np.int64]:
    """Return the number of each row's prompt, [N], by first appearance."""
    numbers: dict[bytes, int] = {}
    return np.asarray([numbers.setdefault(row.prompt.tobytes(), len(numbers)) for row in _rows(data)], np.int64)


def is_ranked(data: EncodedData) -> bool:
    """Whether responses stand in several pairs, as those of ranked lists do; looks at the first rows."""
    if data.kind != "preference" or not len(data):
        return False
    rows = list(_rows(data, _NUM_LOOKED_AT))
    named = {(row.prompt.tobytes(), text.tobytes()) for row in rows for text in (row.first, row.second)}
    return len(named) <= RANKED_SHARE * 2 * len(rows)


def _rows(data: EncodedData, most: int | None = None) -> Iterator[EncodedRow]:
    return (data.row(index) for index in range(len(data) if most is None else min(most, len(data))))
