"""Held-out accuracies, their intervals and baselines: expected values by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import write_data

from core.training.data.encoded import EncodedData
from core.training.measures.held_out import describe_held_out
from core.training.steps.pair_table import PairTable
from core.training.steps.reference_logps import SplitLogps


def describe(directory: Path, lengths: list[tuple[int, int]], margins: list[float], **options: Any) -> dict[str, Any]:
    """Pairs of responses of these lengths, to which the policy gives these margins."""
    rows: list[Any] = [([3], [4] * first, [5] * second) for first, second in lengths]
    data = EncodedData.open(write_data(directory / "data", rows))
    rewards = PairTable(len(rows))
    rewards.last_chosen[:], rewards.last_rejected[:] = np.float32(margins), 0.0
    reference = options.get("reference")
    if reference is not None:
        reference = SplitLogps(np.float32(reference), np.float32(reference))
    described: Any = describe_held_out(data, rewards, reference, options.get("seed", 0))
    return dict(described)


def test_accuracies_of_policy_and_baselines(tmp_path: Path) -> None:
    lengths = [(4, 2), (2, 4), (4, 2), (3, 3)]
    sums = [[-4.0, -3.0], [-3.0, -4.0], [-4.0, -5.0], [-3.0, -3.0]]
    found = describe(tmp_path, lengths, [1.0, 2.0, -1.0, 0.0], reference=sums)
    assert found["num_pairs"] == 4
    assert found["mean_margin"] == 0.5
    assert found["reward_accuracy"]["value"] == (1 + 1 + 0 + 0.5) / 4
    values = {name: judged["value"] for name, judged in found["baselines"].items()}
    assert values == {
        "longer_wins": (1 + 0 + 1 + 0.5) / 4,
        "before_dpo_likelihood": (0 + 1 + 1 + 0.5) / 4,
        "before_dpo_likelihood_per_token": (1 + 0 + 1 + 0.5) / 4,  # -1 > -1.5, -1.5 < -1, -1 > -2.5
    }
    assert found["better_than"]["before_dpo_likelihood"]["value"] == (1 + 0 - 1 + 0) / 4


def test_the_interval_is_that_of_the_mean_over_pairs(tmp_path: Path) -> None:
    num_pairs, num_right = 400, 280
    margins = [1.0] * num_right + [-1.0] * (num_pairs - num_right)
    interval = describe(tmp_path, [(2, 3)] * num_pairs, margins)["reward_accuracy"]
    half = 1.96 * math.sqrt(0.7 * 0.3 / num_pairs)
    assert interval["value"] == 0.7
    assert interval["low"] == pytest.approx(0.7 - half, abs=0.006)
    assert interval["high"] == pytest.approx(0.7 + half, abs=0.006)


def test_a_baseline_that_judges_alike_is_no_worse_without_any_doubt(tmp_path: Path) -> None:
    """The difference is of the same pairs, so what both get wrong does not blur it."""
    lengths = [(4, 2), (2, 4)] * 50
    found = describe(tmp_path, lengths, [1.0, -1.0] * 50)
    assert found["better_than"]["longer_wins"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["baselines"].keys() == {"longer_wins"}  # without a reference there is nothing before DPO
    assert found["reward_accuracy"]["low"] < 0.45 < 0.55 < found["reward_accuracy"]["high"]


def test_the_same_seed_gives_the_same_interval(tmp_path: Path) -> None:
    margins = [1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0]
    found = [
        describe(tmp_path / str(n), [(2, 3)] * 7, margins, seed=seed)["reward_accuracy"]
        for n, seed in enumerate((1, 1, 2))
    ]
    assert found[0] == found[1]
    assert {interval["value"] for interval in found} == {5 / 7}


def test_the_likelihood_per_token_is_that_of_scored_tokens(tmp_path: Path) -> None:
    """Ten tokens of which five are scored count as five: -6 / 5 is below -4 / 4, though above it over all tokens."""
    data = EncodedData.open(write_data(tmp_path / "data", [([5, 6], [7] * 10, [8] * 4)]))
    scored = np.concatenate((np.zeros(2), np.repeat([0, 1], 5), np.ones(4))).astype(np.uint8)
    data = EncodedData({"kind": data.kind, "digest": ""}, np.asarray(data._tokens), scored, np.asarray(data._rows))
    rewards = PairTable(1)
    rewards.last_chosen[:], rewards.last_rejected[:] = 1.0, 0.0
    sums = np.float32([[-6.0, -4.0]])
    found: Any = describe_held_out(data, rewards, SplitLogps(sums, sums), 0)
    assert found["baselines"]["before_dpo_likelihood_per_token"]["value"] == 0.0
