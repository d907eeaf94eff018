"""Values of every loss: the worked example, step 0, and oracles written from the papers in float64."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pytest
import torch

from core.domain.variants.catalogue import VARIANTS
from core.training.losses.objective import build_objective, build_unpaired_objective
from core.training.losses.values import PairLogps, ResponseLogps

PAIRED = [variant.name for variant in VARIANTS.values() if variant.data == "preference"]
Floats = np.ndarray


class Arrays(NamedTuple):
    """One response of each of B rows under one model, in float64."""

    sums: Floats
    num_tokens: Floats
    prefix_sums: Floats
    log_weights: Floats


class Pairs(NamedTuple):
    chosen: Arrays
    rejected: Arrays


def random_arrays(rng: np.random.Generator, num_tokens: Floats, num_rows: int) -> Arrays:
    sums = -rng.uniform(0.2, 3.0, num_rows) * num_tokens
    return Arrays(
        # What float32 can hold, so that oracle and engine start from the same numbers.
        sums.astype(np.float32).astype(np.float64),
        num_tokens,
        (sums * rng.uniform(0.2, 1.0, num_rows)).astype(np.float32).astype(np.float64),
        rng.uniform(-2.0, 1.0, num_rows).astype(np.float32).astype(np.float64),
    )


def random_case(seed: int, num_rows: int = 64) -> tuple[Pairs, Pairs]:
    """Policy and reference log-probabilities of the same random responses."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, (2, num_rows)).astype(np.float64)
    policy, reference = (
        Pairs(random_arrays(rng, lengths[0], num_rows), random_arrays(rng, lengths[1], num_rows)) for _ in range(2)
    )
    return policy, reference


def to_torch(pairs: Pairs, dtype: torch.dtype) -> PairLogps:
    def convert(arrays: Arrays) -> ResponseLogps:
        return ResponseLogps(
            torch.tensor(arrays.sums, dtype=dtype),
            torch.tensor(arrays.num_tokens, dtype=torch.int64),
            torch.tensor(arrays.prefix_sums, dtype=dtype),
            torch.tensor(arrays.log_weights, dtype=dtype),
        )

    return PairLogps(convert(pairs.chosen), convert(pairs.rejected))


def one_pair(chosen: float, rejected: float, num_tokens: int = 10, log_weight: float = 0.0) -> PairLogps:
    def response(value: float) -> ResponseLogps:
        sums = torch.tensor([value])
        return ResponseLogps(sums, torch.tensor([num_tokens]), sums, torch.full((1,), log_weight))

    return PairLogps(response(chosen), response(rejected))


# The worked example


def test_worked_example() -> None:
    sums = torch.tensor([-31.0], requires_grad=True)
    policy = PairLogps(ResponseLogps(sums, torch.tensor([10]), sums), one_pair(0.0, -36.0).rejected)
    result = build_objective("dpo", 0.1, {})(policy, one_pair(-34.0, -33.0))
    margin = (-31.0 + 34.0) - (-36.0 + 33.0)
    assert margin == 6.0
    assert result.losses.item() == pytest.approx(math.log1p(math.exp(-0.1 * margin)), abs=1e-7)
    assert result.losses.item() == pytest.approx(0.437488, abs=1e-6)
    assert result.chosen_rewards.item() == pytest.approx(0.3, abs=1e-6)
    assert result.rejected_rewards.item() == pytest.approx(-0.3, abs=1e-6)
    result.losses.sum().backward()
    assert sums.grad is not None
    assert -sums.grad.item() / 0.1 == pytest.approx(0.354344, abs=1e-6)
    assert -sums.grad.item() / 0.1 == pytest.approx(1 / (1 + math.exp(0.6)), abs=1e-7)


# T1: step 0, where the policy is the reference

LN2 = math.log(2)
STEP_0: Mapping[str, Callable[[float], float]] = {
    "dpo": lambda beta: LN2,
    "plackett_luce": lambda beta: LN2,
    "cdpo": lambda beta: LN2,
    "robust": lambda beta: LN2,
    "ipo": lambda beta: 1 / (4 * beta**2),
    "hinge": lambda beta: 1.0,
    "length_normalized": lambda beta: LN2,
    "ld_dpo": lambda beta: LN2,
    "r_dpo": lambda beta: LN2,
    "dpop": lambda beta: LN2,
    "exo": lambda beta: -LN2 - (math.log(1 - 1e-3) + math.log(1e-3)) / 2,
    "discopop": lambda beta: LN2 / 2 + 1 / 2,
    "f_dpo": lambda beta: LN2,
    "wpo": lambda beta: LN2,
    "apo_zero": lambda beta: 1.0,
    "apo_down": lambda beta: 1.0,
    "nca": lambda beta: 2 * LN2,
    "bco": lambda beta: 2 * LN2,
    "sppo": lambda beta: 1 / (2 * beta**2),
    "aot": lambda beta: LN2,
    # NLL of 31 nats over 10 tokens, weight 1
    "rpo": lambda beta: LN2 + 3.1,
}


def test_step_0_is_known_for_every_variant_with_a_reference() -> None:
    differing = set(STEP_0) ^ {name for name in PAIRED if VARIANTS[name].needs_reference}
    assert not differing, f"STEP_0 has one value too many, or none, of {sorted(differing)}"


@pytest.mark.parametrize("variant", STEP_0)
@pytest.mark.parametrize("beta_factor", [1.0, 3.0])
def test_step_0(variant: str, beta_factor: float) -> None:
    beta = VARIANTS[variant].default_beta * beta_factor
    pairs = one_pair(-31.0, -36.0)
    result = build_objective(variant, beta, {})(pairs, pairs)
    assert result.losses.item() == pytest.approx(STEP_0[variant](beta), rel=1e-6)
    assert result.chosen_rewards.item() == 0.0
    assert result.rejected_rewards.item() == 0.0


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        *((name, {}) for name in STEP_0),
        ("ipo", {"normalization": "sum"}),
        ("aot", {"pairing": "unpaired"}),
        *(("ld_dpo", {"alpha": alpha}) for alpha in (0.0, 0.3, 1.0)),
        *(("f_dpo", {"divergence": divergence}) for divergence in ("forward_kl", "js", "alpha")),
    ],
)
def test_score_is_the_same_for_policy_and_reference(variant: str, options: dict[str, str | float]) -> None:
    """T13 and T17: at step 0 all rewards are exactly 0 whatever the lengths, so no accuracy is won by rounding."""
    pairs = to_torch(random_case(seed=3)[0], torch.float32)
    result = build_objective(variant, 0.1, options)(pairs, pairs)
    assert torch.count_nonzero(result.chosen_rewards) == 0
    assert torch.count_nonzero(result.rejected_rewards) == 0
    assert not (result.chosen_rewards > result.rejected_rewards).any()


def test_step_0_of_unpaired_responses() -> None:
    sums = torch.tensor([-31.0, -36.0])
    objective = build_unpaired_objective("kto", 0.1, {"desirable_weight": 1.0, "undesirable_weight": 3.0})
    kl = objective.kl(sums, sums)
    result = objective(sums, sums, torch.tensor([True, False]), kl)
    assert kl.item() == 0.0
    assert result.losses.tolist() == [0.5, 1.5]
    assert result.rewards.tolist() == [0.0, 0.0]


# T22: the authors' own code


def authors_preference_loss(
    policy: Pairs,
    reference: Pairs,
    beta: float,
    label_smoothing: float = 0.0,
    ipo: bool = False,
    reference_free: bool = False,
) -> tuple[Floats, Floats, Floats]:
    """What the authors' `preference_loss` computes, from its formulae (eq. 7; eq. 3 of the cDPO note; IPO eq. 17)."""
    policy_log_ratios = policy.chosen.sums - policy.rejected.sums
    reference_log_ratios = reference.chosen.sums - reference.rejected.sums
    logits = policy_log_ratios - (0.0 if reference_free else reference_log_ratios)
    if ipo:
        losses = (logits - 1 / (2 * beta)) ** 2
    else:
        losses = np.logaddexp(0, -beta * logits) * (1 - label_smoothing)
        losses += np.logaddexp(0, beta * logits) * label_smoothing
    chosen_rewards = beta * (policy.chosen.sums - reference.chosen.sums)
    rejected_rewards = beta * (policy.rejected.sums - reference.rejected.sums)
    return losses, chosen_rewards, rejected_rewards


@pytest.mark.parametrize(
    ("variant", "options", "arguments"),
    [
        ("dpo", {}, {}),
        ("cdpo", {"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
        ("cdpo", {"label_smoothing": 0.0}, {}),
        ("ipo", {"normalization": "sum"}, {"ipo": True}),
        ("reference_free", {}, {"reference_free": True}),
    ],
)
@pytest.mark.parametrize("beta", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parity_with_the_authors_code(
    variant: str, options: dict[str, float], arguments: dict[str, float], beta: float, dtype: torch.dtype
) -> None:
    policy, reference = random_case(seed=1)
    losses, chosen_rewards, rejected_rewards = authors_preference_loss(policy, reference, beta, **arguments)
    result = build_objective(variant, beta, options)(to_torch(policy, dtype), to_torch(reference, dtype))
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    np.testing.assert_allclose(result.losses.numpy(), losses, rtol=tolerance, atol=tolerance)
    if variant == "reference_free":
        chosen_rewards, rejected_rewards = beta * policy.chosen.sums, beta * policy.rejected.sums
    np.testing.assert_allclose(result.chosen_rewards.numpy(), chosen_rewards, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(result.rejected_rewards.numpy(), rejected_rewards, rtol=tolerance, atol=tolerance)


# Every variant against a float64 oracle


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def log_ratio(policy: Arrays, reference: Arrays) -> Floats:
    return policy.sums - reference.sums


def margin(policy: Pairs, reference: Pairs) -> Floats:
    return log_ratio(policy.chosen, reference.chosen) - log_ratio(policy.rejected, reference.rejected)


def per_token(arrays: Arrays) -> Floats:
    return arrays.sums / arrays.num_tokens


def cdpo(p: Pairs, r: Pairs, beta: float, label_smoothing: float) -> Floats:
    q = sigmoid(beta * margin(p, r))
    return -(1 - label_smoothing) * np.log(q) - label_smoothing * np.log(1 - q)


def robust(p: Pairs, r: Pairs, beta: float, label_smoothing: float) -> Floats:
    q = sigmoid(beta * margin(p, r))
    return (-(1 - label_smoothing) * np.log(q) + label_smoothing * np.log(1 - q)) / (1 - 2 * label_smoothing)


def ipo(p: Pairs, r: Pairs, beta: float, normalization: str) -> Floats:
    divisors = (p.chosen.num_tokens, p.rejected.num_tokens) if normalization == "mean" else (1.0, 1.0)
    chosen, rejected = log_ratio(p.chosen, r.chosen), log_ratio(p.rejected, r.rejected)
    return (chosen / divisors[0] - rejected / divisors[1] - 1 / (2 * beta)) ** 2


def ld_dpo(p: Pairs, r: Pairs, beta: float, alpha: float) -> Floats:
    def score(arrays: Arrays) -> Floats:
        return (1 - alpha) * arrays.prefix_sums + alpha * arrays.sums

    chosen, rejected = score(p.chosen) - score(r.chosen), score(p.rejected) - score(r.rejected)
    return -np.log(sigmoid(beta * (chosen - rejected)))


def length_normalized(p: Pairs, r: Pairs, beta: float) -> Floats:
    chosen, rejected = per_token(p.chosen) - per_token(r.chosen), per_token(p.rejected) - per_token(r.rejected)
    return -np.log(sigmoid(beta * (chosen - rejected)))


def r_dpo(p: Pairs, r: Pairs, beta: float, alpha: float) -> Floats:
    return -np.log(sigmoid(beta * margin(p, r) + alpha * (p.chosen.num_tokens - p.rejected.num_tokens)))


def dpop(p: Pairs, r: Pairs, beta: float, **options: float) -> Floats:
    shortfall = np.maximum(0, r.chosen.sums - p.chosen.sums)
    return np.logaddexp(0, -beta * (margin(p, r) - options["lambda"] * shortfall))


def exo(p: Pairs, r: Pairs, beta: float, label_smoothing: float) -> Floats:
    q = sigmoid(beta * margin(p, r))
    return q * np.log(q / (1 - label_smoothing)) + (1 - q) * np.log((1 - q) / label_smoothing)


def discopop(p: Pairs, r: Pairs, beta: float, tau: float) -> Floats:
    u = beta * margin(p, r)
    return (1 - sigmoid(u / tau)) * -np.log(sigmoid(u)) + sigmoid(u / tau) * np.exp(-u)


def f_dpo(p: Pairs, r: Pairs, beta: float, divergence: str, alpha: float = 0.0) -> Floats:
    slopes: dict[str, Callable[[Floats], Floats]] = {
        "forward_kl": lambda u: -1 / u,
        "js": lambda u: np.log(2 * u / (1 + u)),
        "alpha": lambda u: (1 - u**-alpha) / alpha,
    }
    chosen, rejected = (slopes[divergence](np.exp(log_ratio(ours, theirs))) for ours, theirs in zip(p, r, strict=True))
    return np.logaddexp(0, -beta * (chosen - rejected))


def wpo(p: Pairs, r: Pairs, beta: float) -> Floats:
    weights = np.exp(p.chosen.log_weights) * np.exp(p.rejected.log_weights)
    return -weights * np.log(sigmoid(beta * margin(p, r)))


def apo_zero(p: Pairs, r: Pairs, beta: float) -> Floats:
    return 1 - sigmoid(beta * log_ratio(p.chosen, r.chosen)) + sigmoid(beta * log_ratio(p.rejected, r.rejected))


def apo_down(p: Pairs, r: Pairs, beta: float) -> Floats:
    return sigmoid(beta * log_ratio(p.chosen, r.chosen)) + 1 - sigmoid(beta * margin(p, r))


def nca(p: Pairs, r: Pairs, beta: float) -> Floats:
    chosen = sigmoid(beta * log_ratio(p.chosen, r.chosen))
    rejected = sigmoid(beta * log_ratio(p.rejected, r.rejected))
    return -np.log(chosen) - np.log(1 - chosen) / 2 - np.log(1 - rejected) / 2


def bco(p: Pairs, r: Pairs, beta: float) -> Floats:
    chosen = sigmoid(beta * log_ratio(p.chosen, r.chosen))
    rejected = sigmoid(beta * log_ratio(p.rejected, r.rejected))
    return -np.log(chosen) - np.log(1 - rejected)


def sppo(p: Pairs, r: Pairs, beta: float) -> Floats:
    chosen, rejected = log_ratio(p.chosen, r.chosen), log_ratio(p.rejected, r.rejected)
    return (chosen - 1 / (2 * beta)) ** 2 + (rejected + 1 / (2 * beta)) ** 2


def aot(p: Pairs, r: Pairs, beta: float, pairing: str, label_smoothing: float) -> Floats:
    if pairing == "paired":
        d = np.sort(p.chosen.sums - p.rejected.sums) - np.sort(r.chosen.sums - r.rejected.sums)
    else:
        d = np.sort(log_ratio(p.chosen, r.chosen)) - np.sort(log_ratio(p.rejected, r.rejected))
    q = sigmoid(beta * d)
    return -(1 - label_smoothing) * np.log(q) - label_smoothing * np.log(1 - q)


def simpo(p: Pairs, r: Pairs, beta: float, gamma: float) -> Floats:
    return -np.log(sigmoid(beta * (per_token(p.chosen) - per_token(p.rejected)) - gamma))


def orpo(p: Pairs, r: Pairs, beta: float) -> Floats:
    def odds(arrays: Arrays) -> Floats:
        probability = np.exp(per_token(arrays))
        return probability / (1 - probability)

    return -per_token(p.chosen) - beta * np.log(sigmoid(np.log(odds(p.chosen) / odds(p.rejected))))


def cpo(p: Pairs, r: Pairs, beta: float, alpha: float) -> Floats:
    return -np.log(sigmoid(beta * (p.chosen.sums - p.rejected.sums))) - alpha * per_token(p.chosen)


ORACLES: list[tuple[str, float, dict[str, float | str], Callable[..., Floats]]] = [
    ("dpo", 0.1, {}, lambda p, r, beta: -np.log(sigmoid(beta * margin(p, r)))),
    ("plackett_luce", 0.1, {}, lambda p, r, beta: -np.log(sigmoid(beta * margin(p, r)))),
    ("cdpo", 0.1, {"label_smoothing": 0.2}, cdpo),
    ("robust", 0.1, {"label_smoothing": 0.2}, robust),
    ("ipo", 0.1, {"normalization": "mean"}, ipo),
    ("ipo", 0.1, {"normalization": "sum"}, ipo),
    ("hinge", 0.05, {}, lambda p, r, beta: np.maximum(0, 1 - beta * margin(p, r))),
    ("length_normalized", 5.0, {}, length_normalized),
    ("ld_dpo", 0.1, {"alpha": 0.3}, ld_dpo),
    ("r_dpo", 0.1, {"alpha": 0.05}, r_dpo),
    (
        "rpo",
        0.1,
        {"alpha": 0.2},
        lambda p, r, beta, alpha: -np.log(sigmoid(beta * margin(p, r))) - alpha * per_token(p.chosen),
    ),
    ("dpop", 0.1, {"lambda": 5.0}, dpop),
    ("exo", 0.1, {"label_smoothing": 0.001}, exo),
    ("discopop", 0.05, {"tau": 0.05}, discopop),
    ("f_dpo", 0.1, {"divergence": "forward_kl"}, f_dpo),
    ("f_dpo", 0.1, {"divergence": "js"}, f_dpo),
    ("f_dpo", 0.1, {"divergence": "alpha", "alpha": 0.3}, f_dpo),
    ("wpo", 0.1, {}, wpo),
    ("apo_zero", 0.1, {}, apo_zero),
    ("apo_down", 0.1, {}, apo_down),
    ("nca", 0.01, {}, nca),
    ("bco", 0.01, {}, bco),
    ("sppo", 0.01, {}, sppo),
    ("aot", 0.01, {"pairing": "paired", "label_smoothing": 0.0}, aot),
    ("aot", 0.01, {"pairing": "unpaired", "label_smoothing": 0.1}, aot),
    ("reference_free", 0.1, {}, lambda p, r, beta: -np.log(sigmoid(beta * (p.chosen.sums - p.rejected.sums)))),
    ("simpo", 2.0, {"gamma": 1.0}, simpo),
    ("orpo", 0.1, {}, orpo),
    ("cpo", 0.1, {"alpha": 0.7}, cpo),
    ("unlikelihood", 0.3, {}, lambda p, r, beta: -p.chosen.sums + beta * p.rejected.sums),
]


def test_every_variant_has_an_oracle() -> None:
    missing = set(PAIRED) - {name for name, *_ in ORACLES}
    assert not missing, f"ORACLES lacks {sorted(missing)}: a function of numpy, written from the paper"


@pytest.mark.parametrize(("variant", "beta", "options", "oracle"), ORACLES)
def test_values(variant: str, beta: float, options: dict[str, float | str], oracle: Callable[..., Floats]) -> None:
    policy, reference = random_case(seed=2)
    if variant == "f_dpo":
        # Near the reference, where exp(log-ratio) is tame enough for the oracle.
        reference = Pairs(
            *(
                theirs._replace(sums=ours.sums - 3 * np.cos(ours.sums))
                for ours, theirs in zip(policy, reference, strict=True)
            )
        )
    expected = oracle(policy, reference, beta, **options)
    objective = build_objective(variant, beta, options)
    exact = objective(to_torch(policy, torch.float64), to_torch(reference, torch.float64))
    np.testing.assert_allclose(exact.losses.numpy(), expected, rtol=1e-9, atol=1e-9)
    single = objective(to_torch(policy, torch.float32), to_torch(reference, torch.float32))
    np.testing.assert_allclose(single.losses.numpy(), expected, rtol=2e-5, atol=2e-5)


REWARDS: Mapping[str, Callable[[Arrays, Arrays], Floats]] = {
    "ipo": lambda p, r: per_token(p) - per_token(r),
    "length_normalized": lambda p, r: per_token(p) - per_token(r),
    "ld_dpo": lambda p, r: (p.sums + p.prefix_sums - r.sums - r.prefix_sums) / 2,
    "f_dpo": lambda p, r: np.log(2) + log_ratio(p, r) - np.logaddexp(0, log_ratio(p, r)),
    "reference_free": lambda p, r: p.sums,
    "cpo": lambda p, r: p.sums,
    "unlikelihood": lambda p, r: p.sums,
    "simpo": lambda p, r: per_token(p),
    "orpo": lambda p, r: per_token(p),
}


@pytest.mark.parametrize("variant", PAIRED)
def test_rewards_are_beta_times_what_the_registry_says(variant: str) -> None:
    policy, reference = random_case(seed=4)
    result = build_objective(variant, 0.3, {})(to_torch(policy, torch.float64), to_torch(reference, torch.float64))
    unit = REWARDS.get(variant, log_ratio)
    np.testing.assert_allclose(result.chosen_rewards.numpy(), 0.3 * unit(policy.chosen, reference.chosen), rtol=1e-9)
    np.testing.assert_allclose(
        result.rejected_rewards.numpy(), 0.3 * unit(policy.rejected, reference.rejected), rtol=1e-9
    )


def test_kto_values() -> None:
    rng = np.random.default_rng(5)
    policy, reference, mismatched = (rng.uniform(-30, -1, 8).astype(np.float32) for _ in range(3))
    labels = np.arange(8) % 3 == 0
    objective = build_unpaired_objective("kto", 0.1, {"desirable_weight": 1.3, "undesirable_weight": 0.7})
    for shift in (5.0, -40.0):
        kl = objective.kl(torch.tensor(mismatched + np.float32(shift)), torch.tensor(mismatched))
        z = max(0.0, shift)
        assert kl.item() == pytest.approx(z, abs=1e-5)
        result = objective(torch.tensor(policy), torch.tensor(reference), torch.tensor(labels), kl)
        log_ratios = policy.astype(np.float64) - reference
        good = 1.3 * (1 - sigmoid(0.1 * (log_ratios - z)))
        bad = 0.7 * (1 - sigmoid(0.1 * (z - log_ratios)))
        np.testing.assert_allclose(result.losses.numpy(), np.where(labels, good, bad), rtol=1e-5)
        np.testing.assert_allclose(result.rewards.numpy(), 0.1 * log_ratios, rtol=1e-5, atol=1e-6)


# T10: likelihood terms


@pytest.mark.parametrize("variant", ["rpo", "cpo"])
def test_likelihood_term_is_a_mean_per_sequence_with_an_exact_weight(variant: str) -> None:
    policy, reference = (to_torch(pairs, torch.float64) for pairs in random_case(seed=6))
    plain, weighted = (
        build_objective(variant, 0.1, {"alpha": alpha})(policy, reference).losses for alpha in (0.0, 0.25)
    )
    per_sequence = -policy.chosen.sums / policy.chosen.num_tokens
    torch.testing.assert_close(weighted - plain, 0.25 * per_sequence, rtol=1e-12, atol=1e-12)
    same_tokens = policy.chosen.num_tokens.float().std()
    assert same_tokens > 0, "lengths must differ, or a mean over all tokens would pass as well"


# T11: denominators


@pytest.mark.parametrize("variant", ["ipo", "length_normalized", "simpo", "orpo"])
def test_denominators_are_each_responses_own_scored_tokens(variant: str) -> None:
    """Two responses of the same log-probability per token are equal, whatever their lengths."""
    short = ResponseLogps(torch.tensor([-6.0]), torch.tensor([3]), torch.tensor([-6.0]))
    long = ResponseLogps(torch.tensor([-26.0]), torch.tensor([13]), torch.tensor([-26.0]))
    reference = PairLogps(
        ResponseLogps(torch.tensor([-3.0]), torch.tensor([3]), torch.tensor([-3.0])),
        ResponseLogps(torch.tensor([-13.0]), torch.tensor([13]), torch.tensor([-13.0])),
    )
    result = build_objective(variant, 2.0, {})(PairLogps(short, long), reference)
    assert result.chosen_rewards.item() == result.rejected_rewards.item()
