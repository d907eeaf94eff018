"""Rows with the same prompt: their groups, and whether a dataset is ranked."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from core.domain.training import sharing
from core.training.data.encoded import EncodedData, EncodedRow

_NUM_LOOKED_AT = 10_000


def prompt_groups(data: EncodedData) -> NDArray[np.int64]:
    """Return the number of each row's prompt, [N], by first appearance."""
    numbers: dict[bytes, int] = {}
    return np.asarray([numbers.setdefault(row.prompt.tobytes(), len(numbers)) for row in _rows(data)], np.int64)


def is_ranked(data: EncodedData) -> bool:
    """Whether responses stand in several pairs, as those of ranked lists do; looks at the first rows."""
    if data.kind != "preference":
        return False
    rows = _rows(data, _NUM_LOOKED_AT)
    return sharing.is_ranked([(row.prompt.tobytes(), row.first.tobytes(), row.second.tobytes()) for row in rows])


def _rows(data: EncodedData, most: int | None = None) -> Iterator[EncodedRow]:
    return (data.row(index) for index in range(len(data) if most is None else min(most, len(data))))
