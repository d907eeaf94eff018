"""Figures that stand for a run: intervals of held-out rows, and means over whole epochs."""

import numpy as np
import pytest

from core.training.measures.final_figures import EpochMeans, held_out_figures
from core.training.steps.figures import PairColumn, UnpairedColumn


def pair_values(losses: list[float], margins: list[float]) -> np.ndarray:
    values = np.zeros((len(PairColumn), len(losses)))
    values[PairColumn.LOSS], values[PairColumn.CHOSEN_REWARD] = losses, margins
    return values


def test_held_out_pairs_have_intervals() -> None:
    found = held_out_figures(pair_values([0.1, 0.3, 0.5, 0.7], [1.0, 2.0, 3.0, -1.0]), is_paired=True)
    error = 1.96 * np.std([0.1, 0.3, 0.5, 0.7], ddof=1) / 2
    assert found["num_rows"] == 4
    assert found["loss"] == pytest.approx({"value": 0.4, "low": 0.4 - error, "high": 0.4 + error})
    assert found["reward_margin"]["value"] == 1.25  # type: ignore[index,call-overload]
    # Wilson: (0.75 + 1.92/4 ± 1.96 sqrt(0.75 * 0.25 / 4 + 0.96/16)) / (1 + 3.84/4)
    assert found["reward_accuracy"] == pytest.approx({"value": 0.75, "low": 0.3006, "high": 0.9544}, abs=1e-4)


def test_one_row_has_no_interval_of_its_mean_and_a_wide_one_of_its_share() -> None:
    found = held_out_figures(pair_values([0.2], [1.0]), is_paired=True)
    assert found["loss"] == {"value": 0.2, "low": None, "high": None}
    assert found["reward_accuracy"] == pytest.approx({"value": 1.0, "low": 0.2065, "high": 1.0}, abs=1e-4)


def test_what_is_not_finite_is_null() -> None:
    found = held_out_figures(pair_values([0.2, np.inf], [1.0, np.nan]), is_paired=True)
    assert found["loss"] == {"value": None, "low": None, "high": None}
    assert found["reward_accuracy"]["value"] == 0.5  # type: ignore[index,call-overload]


def test_unpaired_rows_compare_good_with_bad() -> None:
    values = np.zeros((len(UnpairedColumn), 4))
    values[UnpairedColumn.LOSS] = [0.1, 0.2, 0.3, 0.4]
    values[UnpairedColumn.REWARD] = [2.0, -1.0, -3.0, 1.0]
    values[UnpairedColumn.IS_GOOD] = [1, 1, 0, 0]
    found = held_out_figures(values, is_paired=False)
    assert found["reward_margin"]["value"] == pytest.approx(0.5 - -1.0)  # type: ignore[index,call-overload]
    assert found["reward_accuracy"]["value"] == 0.5  # type: ignore[index,call-overload]
    values[UnpairedColumn.IS_GOOD] = 1
    assert held_out_figures(values, is_paired=False)["reward_margin"]["value"] is None  # type: ignore[index,call-overload]


def test_training_means_weigh_rows_and_come_from_the_last_whole_epoch() -> None:
    means = EpochMeans()
    assert means.means() == {}
    means.add(0, {"loss": 1.0, "rewards/margins": None}, 4, weight=4, is_last=False)
    assert means.means() == {"epoch": 1, "is_whole_epoch": False, "num_rows": 4, "loss": 1.0}
    again = EpochMeans()
    again.restore(means.facts())
    again.add(0, {"loss": 0.0, "rewards/margins": 2.0}, 1, weight=1, is_last=True)
    assert again.means() == {"epoch": 1, "is_whole_epoch": True, "num_rows": 5, "loss": 0.8, "reward_margin": 2.0}
    again.add(1, {"loss": 9.0}, 1, weight=1, is_last=False)
    assert again.means()["loss"] == 0.8, "not from a batch of one row"
