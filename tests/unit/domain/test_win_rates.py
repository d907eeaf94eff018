"""Win rates: intervals that hold what they are about, lengths taken out, and agreement."""

import math
import random

import pytest

from core.domain.judging.win_rates import JudgedPair, agreement, length_controlled, t_quantile, win_rate


def planted(share: float, num_prompts: int, seed: int, *, samples: int = 4, spread: float = 0.0) -> list[JudgedPair]:
    """Pairs of which the first answer is better with that probability, which may differ from prompt to prompt."""
    rng = random.Random(seed)
    pairs = []
    for prompt in range(num_prompts):
        own = min(1.0, max(0.0, share + rng.uniform(-spread, spread)))
        pairs += [
            JudgedPair(prompt=prompt, score=float(rng.random() < own), length_difference=rng.gauss(0, 50))
            for _ in range(samples)
        ]
    return pairs


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_a_policy_against_itself_is_at_a_half_in_seventeen_of_twenty_seeds(spread: float) -> None:
    rates = [win_rate(planted(0.5, 60, seed, spread=spread)) for seed in range(20)]
    assert sum(rate.low <= 0.5 <= rate.high for rate in rates) >= 17
    controlled = [length_controlled(planted(0.5, 60, seed, spread=spread)) for seed in range(20)]
    assert sum(rate.low <= 0.5 <= rate.high for rate in controlled) >= 17


def test_the_interval_covers_the_planted_share_as_often_as_it_says() -> None:
    """Of prompts that differ: an interval over pairs would be far too narrow."""
    found = [win_rate(planted(0.6, 50, seed, samples=6, spread=0.4)) for seed in range(400)]
    covered = sum(rate.low <= 0.6 <= rate.high for rate in found) / len(found)
    assert 0.92 <= covered <= 0.985


def test_a_planted_share_is_found() -> None:
    rate = win_rate(planted(0.6, 1000, 1))
    assert rate.value == pytest.approx(0.6, abs=0.02)
    assert rate.low > 0.5
    assert rate.high - rate.low < 0.08


def test_lengths_that_decide_are_taken_out() -> None:
    """The judge prefers the longer answer whatever it says, and the first model writes longer ones."""
    rng = random.Random(3)
    pairs = []
    for prompt in range(800):
        difference = rng.gauss(60, 60)
        chance = 1 / (1 + math.exp(-2 * math.tanh(difference / 85)))
        pairs.append(JudgedPair(prompt=prompt, score=float(rng.random() < chance), length_difference=difference))
    raw, controlled = win_rate(pairs), length_controlled(pairs)
    assert raw.low > 0.6
    assert controlled.low < 0.5 < controlled.high


def test_without_differences_of_length_both_are_one() -> None:
    pairs = [JudgedPair(prompt=n, score=float(n % 3 == 0), length_difference=0) for n in range(30)]
    assert length_controlled(pairs) == win_rate(pairs)


def test_length_that_decides_everything_stays_finite() -> None:
    pairs = [JudgedPair(prompt=n, score=float(n % 2), length_difference=100.0 if n % 2 else -100.0) for n in range(40)]
    rate = length_controlled(pairs)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.value == pytest.approx(0.5, abs=0.01)


def test_ends_and_little_data() -> None:
    assert win_rate([]) == (0.5, 0.0, 1.0)
    one = [JudgedPair(prompt=1, score=1.0, length_difference=3.0)]
    assert win_rate(one) == (1.0, 0.0, 1.0)
    all_won = [JudgedPair(prompt=n, score=1.0, length_difference=0) for n in range(20)]
    rate = win_rate(all_won)
    assert rate.value == 1
    assert 0.7 < rate.low < 0.9


def test_samples_of_one_prompt_are_no_new_evidence() -> None:
    once = planted(0.5, 40, 1, samples=1)
    repeated = [pair for pair in once for _ in range(10)]
    assert win_rate(repeated) == pytest.approx(win_rate(once), abs=1e-9)


@pytest.mark.parametrize(("degrees", "value"), [(1, 12.706), (3, 3.182), (10, 2.228), (100, 1.984)])
def test_quantiles_of_student(degrees: int, value: float) -> None:
    assert t_quantile(degrees) == pytest.approx(value, rel=0.012)


def test_agreement_and_kappa() -> None:
    scores = [(1.0, 1.0)] * 6 + [(0.0, 0.0)] * 2 + [(1.0, 0.0)] * 2
    found = agreement(scores)
    assert (found.num_pairs, found.value) == (10, 0.8)
    assert found.kappa == pytest.approx((0.8 - (0.8 * 0.6 + 0.2 * 0.4)) / (1 - 0.56))
    assert agreement([]).num_pairs == 0
    assert agreement([(1.0, 1.0)] * 3).kappa is None
