"""Report of every pair: rewards when it was first and last seen, one JSON line per pair."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.disk_space import room_for
from core.domain.training.artifact_files import PAIR_VALUES
from core.training.data.encoded import EncodedData
from core.training.measures import pair_flags
from core.training.steps.figures import gradient_weights
from core.training.steps.pair_table import PairTable
from core.training.steps.reference_logps import SplitLogps

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class SplitReport:
    """The pairs of one split."""

    split: str
    data: EncodedData
    rewards: PairTable
    reference: SplitLogps | None
    order: NDArray[np.int64] | None = None
    """[N] rows in the order in which the first epoch took them; None for a split that is not trained on."""


def write_pair_report(path: Path, splits: list[SplitReport]) -> None:
    """Write one JSON line per pair.

    Its keys are `core.domain.training.artifact_files.PAIR_COLUMNS`, its flags those of
    `core.training.measures.pair_flags`. A value is null where there is no reference or the pair was never seen.

    An unpaired row has one reward, its margin is that reward, or for a response marked bad what is opposite to it.
    """
    with room_for("the pair report"), path.open("w", encoding="utf-8") as file:
        for split in splits:
            for record in _records(split):
                file.write(json.dumps(record, allow_nan=False) + "\n")


def untrained_pair(split: str, line: int) -> dict[str, object]:
    """Return the record of a pair that was set aside because it would have had to be cut."""
    return {"line": line, "split": split, **dict.fromkeys(PAIR_VALUES), "flags": [pair_flags.TRUNCATED]}


def _records(report: SplitReport) -> Iterator[dict[str, object]]:
    rewards = report.rewards
    last_margins = rewards.last_chosen.astype(np.float64) - rewards.last_rejected
    weights = gradient_weights(last_margins)
    judgement = _judge(report, last_margins)
    is_unpaired, labels = report.data.kind == "unpaired", report.data.labels
    lengths = report.data.first_lengths - report.data.second_lengths
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
            "length_difference": None if is_unpaired else int(lengths[row]),
            "mislabelled_score": _finite(judgement.scores[row]),
            "flags": [name for name, rows in judgement.flagged.items() if rows[row]],
        }


@dataclass(frozen=True)
class _Judgement:
    scores: FloatArray
    flagged: dict[str, NDArray[np.bool_]]


def _judge(report: SplitReport, last_margins: FloatArray) -> _Judgement:
    """Flag a pair; a validation pair is never trained on, so its last margin serves to judge its label."""
    is_trained = report.order is not None
    before = (report.rewards.first_margins if is_trained else last_margins).astype(np.float64)
    order = np.arange(len(before)) if report.order is None else report.order
    scores = pair_flags.mislabelled_scores(before, order)
    with np.errstate(invalid="ignore"):
        is_wrong = last_margins <= 0
        was_right = report.rewards.best_margins > 0
        satisfied = before >= pair_flags.SATISFIED_MARGIN
    flagged = {pair_flags.LIKELY_MISLABELLED: pair_flags.is_mislabelled(scores, before)}
    if is_trained:
        flagged |= {
            pair_flags.NEVER_LEARNED: is_wrong & ~was_right,
            pair_flags.ALREADY_SATISFIED: satisfied,
            pair_flags.FORGOTTEN: is_wrong & was_right,
        }
    return _Judgement(scores, flagged)


def _finite(value: np.floating) -> float | None:
    return float(value) if math.isfinite(value) else None
