"""The values of a step, one column per figure over its pairs, on the device and on the host."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Columns:
    """Values of some rows, on the device."""

    rows: tuple[int, ...]
    """[B] rows of the dataset."""
    values: Tensor
    """[C, B] float32, detached."""


@dataclass(frozen=True)
class HostColumns:
    """All rows of a step (or of a dataset) on the host, in the order asked for."""

    rows: tuple[int, ...]
    values: NDArray[np.float64]
    """[C, B]"""
    extra: NDArray[np.float64]
    """Scalars that came along."""


@dataclass(frozen=True)
class Rewards:
    """Implicit rewards of rows; an unpaired row is taken as a pair whose other response has reward 0."""

    rows: tuple[int, ...]
    """[B]"""
    chosen: NDArray[np.float64]
    """[B]"""
    rejected: NDArray[np.float64]
    """[B]"""


def to_host(parts: Sequence[Columns], order: Sequence[int], *extra: Tensor) -> HostColumns:
    """Copy all columns to the host in one transfer.

    Args:
        order: the rows of all parts together, as the result shall have them.
        extra: scalars on the same device.
    """
    width = sum(len(part.rows) for part in parts)
    flat = torch.cat([torch.cat([part.values for part in parts], dim=1).flatten(), *(one.view(1) for one in extra)])
    numbers = flat.double().cpu().numpy()
    values = numbers[: len(numbers) - len(extra)].reshape(-1, width)
    place = {row: position for position, row in enumerate(row for part in parts for row in part.rows)}
    return HostColumns(tuple(order), values[:, [place[row] for row in order]], numbers[len(numbers) - len(extra) :])
