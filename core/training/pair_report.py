"""What became of every pair: rewards when it was first and last seen, one JSON line per pair."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.training.dpo import PairTable
from core.training.encoded_data import EncodedData
from core.training.metrics import gradient_weights
from core.training.reference import SplitLogps

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class SplitReport:
    """The pairs of one split."""

    split: str
    data: EncodedData
    rewards: PairTable
    reference: SplitLogps | None


def write_pair_report(path: Path, splits: list[SplitReport]) -> None:
    """Per pair: `line, split, reference_margin, margin_first, margin_last, chosen_reward, rejected_reward,
    gradient_weight`; null where there is no reference or the pair was never seen.

    An unpaired row has one reward, its margin is that reward, or for a response marked bad what is opposite to it.
    """
    with path.open("w", encoding="utf-8") as file:
        for split in splits:
            for record in _records(split):
                file.write(json.dumps(record, allow_nan=False) + "\n")


def _records(report: SplitReport) -> Iterator[dict[str, object]]:
    rewards = report.rewards
    last_margins = rewards.last_chosen.astype(np.float64) - rewards.last_rejected
    weights = gradient_weights(last_margins)
    is_unpaired, labels = report.data.kind == "unpaired", report.data.labels
    reference = None
    if report.reference is not None and not is_unpaired:
        reference = report.reference.sums[:, 0] - report.reference.sums[:, 1]
    for row, line in enumerate(report.data.lines):
        yield {
            "line": int(line),
            "split": report.split,
            "reference_margin": None if reference is None else _finite(reference[row]),
            "margin_first": _finite(rewards.first_margins[row]),
            "margin_last": _finite(last_margins[row]),
            "chosen_reward": None if is_unpaired and not labels[row] else _finite(rewards.last_chosen[row]),
            "rejected_reward": None if is_unpaired and labels[row] else _finite(rewards.last_rejected[row]),
            "gradient_weight": _finite(weights[row]),
        }


def _finite(value: np.floating) -> float | None:
    return float(value) if math.isfinite(value) else None
