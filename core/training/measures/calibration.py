"""Calibration of a reward model: whether the probabilities that it gives to preferences are those found.

By Bradley and Terry the response of the larger reward is preferred with probability sigmoid(|margin|), its confidence.
Pairs are put into bins of confidence; a bin's accuracy is the share whose preferred response was the chosen one.

Legend: N pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.training.observer import JsonValue

NUM_BINS = 10
"""Bins of equal width between a confidence of 0.5 and 1."""


@dataclass(frozen=True)
class CalibrationBin:
    """Pairs of about the same confidence."""

    confidence: float
    """Mean over its pairs."""
    accuracy: float
    num_pairs: int


def calibration_bins(margins: NDArray[np.float64]) -> list[CalibrationBin]:
    """Return the bins that have pairs, by rising confidence; pairs whose margin is no number are left out.

    Args:
        margins: [N] reward of the chosen over that of the rejected response. Equal rewards count as half right.
    """
    margins = margins[~np.isnan(margins)]
    confidences = 0.5 * (1.0 + np.tanh(0.5 * np.abs(margins)))
    verdicts = (np.sign(margins) + 1) / 2
    places = np.minimum((2 * NUM_BINS * (confidences - 0.5)).astype(int), NUM_BINS - 1)
    return [
        CalibrationBin(float(confidences[inside].mean()), float(verdicts[inside].mean()), int(inside.sum()))
        for place in range(NUM_BINS)
        if (inside := places == place).any()
    ]


def calibration_error(bins: list[CalibrationBin]) -> float | None:
    """Return the mean distance of accuracy from confidence over all pairs; None without a pair."""
    total = sum(part.num_pairs for part in bins)
    if not total:
        return None
    return sum(part.num_pairs * abs(part.accuracy - part.confidence) for part in bins) / total


def describe_calibration(margins: NDArray[np.float64]) -> dict[str, JsonValue]:
    """Return the error and its bins, for results."""
    bins = calibration_bins(margins)
    return {
        "error": calibration_error(bins),
        "bins": [
            {"confidence": part.confidence, "accuracy": part.accuracy, "num_pairs": part.num_pairs} for part in bins
        ],
    }
