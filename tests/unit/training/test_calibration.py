"""Calibration of a reward model's probabilities, on margins whose shares are known."""

import math

import numpy as np
import pytest

from core.training.measures.calibration import calibration_bins, calibration_error, describe_calibration


def test_probabilities_that_are_the_shares_found_have_no_error() -> None:
    """Three of four pairs are preferred as labelled where the model says 0.75."""
    margins = np.full(4, math.log(3))
    margins[0] *= -1
    (found,) = calibration_bins(margins)
    assert (found.confidence, found.accuracy, found.num_pairs) == (pytest.approx(0.75), 0.75, 4)
    assert calibration_error([found]) == pytest.approx(0)


def test_a_model_that_is_too_sure_is_off_by_its_excess() -> None:
    margins = np.array([50.0, 50.0, -50.0, -50.0, 0.0])
    found = calibration_bins(margins)
    assert [(part.confidence, part.accuracy, part.num_pairs) for part in found] == [(0.5, 0.5, 1), (1.0, 0.5, 4)]
    assert calibration_error(found) == pytest.approx(4 / 5 * 0.5)


def test_margins_that_are_no_number_are_left_out() -> None:
    assert describe_calibration(np.array([math.nan])) == {"error": None, "bins": []}
    assert calibration_bins(np.array([math.nan, math.inf]))[0].num_pairs == 1


def test_draws_of_the_model_itself_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 2, 20_000)
    agrees = rng.random(20_000) < 1 / (1 + np.exp(-margins))
    error = calibration_error(calibration_bins(np.where(agrees, margins, -margins)))
    assert error is not None
    assert error < 0.02
