"""Gradients of every loss: finite differences, direction, extremes, and that every option is felt."""

import itertools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from core.domain.variants.catalogue import VARIANTS
from core.domain.variants.checks import BETA_MAX, BETA_MIN
from core.domain.variants.entry import VariantOption
from core.training.losses.objective import build_objective, build_unpaired_objective
from core.training.losses.reference_free import log1mexp
from core.training.losses.values import PairLogps, ResponseLogps

PAIRED = [variant.name for variant in VARIANTS.values() if variant.data == "preference"]
Options = dict[str, float | str]

SETTINGS: list[tuple[str, Options]] = [
    *((name, {}) for name in PAIRED),
    ("ipo", {"normalization": "sum"}),
    ("aot", {"pairing": "unpaired", "label_smoothing": 0.1}),
    ("f_dpo", {"divergence": "forward_kl"}),
    ("f_dpo", {"divergence": "alpha", "alpha": 0.3}),
    ("discopop", {"tau": 1.0}),
]
"""Every variant, and its choices beside the default."""

NUM_TOKENS = (torch.tensor([5, 9, 2, 7]), torch.tensor([6, 3, 8, 7]))


def pairs_of(
    chosen: Tensor, rejected: Tensor, chosen_prefix: Tensor, rejected_prefix: Tensor, log_weight: float = -0.4
) -> PairLogps:
    return PairLogps(
        ResponseLogps(chosen, NUM_TOKENS[0], chosen_prefix, torch.full_like(chosen.detach(), log_weight)),
        ResponseLogps(rejected, NUM_TOKENS[1], rejected_prefix, torch.full_like(rejected.detach(), log_weight)),
    )


def policy_inputs() -> tuple[Tensor, ...]:
    """Sums and prefix sums of chosen and rejected: ones to be differentiated, no two margins equal."""
    values = [
        [-9.0, -14.0, -3.0, -11.0],
        [-8.0, -4.0, -15.0, -12.5],
        [-7.0, -5.0, -3.0, -11.0],
        [-6.5, -4.0, -2.0, -12.5],
    ]
    return tuple(torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in values)


def reference_pairs() -> PairLogps:
    values = [
        [-8.0, -15.5, -4.0, -9.0],
        [-9.5, -5.0, -13.0, -12.0],
        [-6.0, -6.0, -4.0, -9.0],
        [-7.5, -5.0, -3.0, -12.0],
    ]
    return pairs_of(*(torch.tensor(row, dtype=torch.float64) for row in values))


def gradients(variant: str, beta: float, options: Options) -> Tensor:
    """[4, B] gradients of the summed loss by chosen sums, rejected sums, and their prefix sums."""
    inputs = policy_inputs()
    result = build_objective(variant, beta, options)(pairs_of(*inputs), reference_pairs())
    found = torch.autograd.grad(result.losses.sum(), inputs, allow_unused=True)
    return torch.stack(
        [torch.zeros_like(value) if grad is None else grad for value, grad in zip(inputs, found, strict=True)]
    )


# T18: finite differences


@pytest.mark.parametrize(("variant", "options"), SETTINGS)
def test_gradients_match_finite_differences(variant: str, options: Options) -> None:
    objective = build_objective(variant, VARIANTS[variant].default_beta, options)

    def losses(*inputs: Tensor) -> Tensor:
        return objective(pairs_of(*inputs), reference_pairs()).losses

    assert gradients(variant, objective.beta, options).abs().sum() > 0
    assert torch.autograd.gradcheck(losses, policy_inputs(), eps=1e-6, atol=1e-7, rtol=1e-5)


def test_kto_gradients_match_finite_differences() -> None:
    objective = build_unpaired_objective("kto", 0.1, {"desirable_weight": 1.3, "undesirable_weight": 0.7})
    reference = torch.tensor([-8.0, -15.5, -4.0, -9.0], dtype=torch.float64)
    labels = torch.tensor([True, False, False, True])

    def losses(sums: Tensor) -> Tensor:
        return objective(sums, reference, labels, torch.tensor(0.7, dtype=torch.float64)).losses

    assert torch.autograd.gradcheck(losses, policy_inputs()[:1])


def test_the_kl_estimate_carries_no_gradient() -> None:
    objective = build_unpaired_objective("kto", 0.1, {})
    sums = torch.tensor([-8.0, -5.0], requires_grad=True)
    assert not objective.kl(sums, torch.tensor([-9.0, -7.0])).requires_grad


@pytest.mark.parametrize(("variant", "options"), SETTINGS)
def test_float32_gradients_keep_their_digits(variant: str, options: Options) -> None:
    """No two large terms that cancel: single precision costs digits of the last place, not of the first."""
    objective = build_objective(variant, VARIANTS[variant].default_beta, options)

    def found(dtype: torch.dtype) -> Tensor:
        inputs = [value.detach().to(dtype).requires_grad_() for value in policy_inputs()[:2]]
        anchor = [side.sums.to(dtype) for side in (reference_pairs().chosen, reference_pairs().rejected)]
        losses = objective(pairs_of(*inputs, *inputs), pairs_of(*anchor, *anchor)).losses
        return torch.stack(torch.autograd.grad(losses.sum(), inputs)).double()

    torch.testing.assert_close(found(torch.float32), found(torch.float64), rtol=1e-5, atol=1e-7)


# T18: direction

MONOTONE = [
    *(
        "dpo",
        "plackett_luce",
        "robust",
        "hinge",
        "length_normalized",
        "ld_dpo",
        "r_dpo",
        "rpo",
        "dpop",
        "f_dpo",
        "wpo",
        "apo_zero",
    ),
    *("bco", "aot", "reference_free", "simpo", "orpo", "cpo", "unlikelihood"),
]
"""A chosen response's likelihood never hurts, a rejected one's never helps."""
BY_DESIGN_NOT = {
    **dict.fromkeys(("cdpo", "exo", "ipo", "sppo", "nca"), "has a target margin or reward"),
    "apo_down": "lowers both",
    "discopop": "turns round just above margin 0",
}


def test_of_every_variant_is_said_whether_it_is_monotone() -> None:
    missing = set(PAIRED) - {*MONOTONE, *BY_DESIGN_NOT}
    assert not missing, f"name {sorted(missing)} in MONOTONE, or in BY_DESIGN_NOT with the reason"


@pytest.mark.parametrize("variant", MONOTONE)
def test_losses_fall_with_chosen_and_rise_with_rejected(variant: str) -> None:
    objective = build_objective(variant, VARIANTS[variant].default_beta, {})
    grid = torch.linspace(-80.0, -0.01, 25, dtype=torch.float64)
    for shift in (0.0, 13.0, 41.0):
        chosen, rejected = torch.meshgrid(grid, grid, indexing="ij")
        inputs = [side.reshape(-1).clone().requires_grad_() for side in (chosen, rejected)]
        counts = torch.full_like(inputs[0], 7, dtype=torch.int64)
        weights = torch.zeros_like(inputs[0].detach())
        policy = PairLogps(*(ResponseLogps(side, counts, side, weights) for side in inputs))
        anchor = PairLogps(
            *(
                ResponseLogps(side.detach() * 0.5 - shift, counts, side.detach() * 0.5 - shift)
                for side in reversed(inputs)
            )
        )
        by_chosen, by_rejected = torch.autograd.grad(objective(policy, anchor).losses.sum(), inputs)
        assert (by_chosen <= 0).all()
        assert (by_rejected >= 0).all()
        assert (by_chosen < 0).any()
        assert (by_rejected > 0).any()


def test_targets_turn_the_gradient_round() -> None:
    """Losses with a target: at the margin where theory puts it, the gradient is 0, and it changes its sign there."""
    counts = torch.tensor([1])

    def slope(variant: str, beta: float, options: Options, margin: float) -> float:
        sums = torch.tensor([margin], dtype=torch.float64, requires_grad=True)
        zero = torch.zeros(1, dtype=torch.float64)
        flat = ResponseLogps(zero, counts, zero)
        result = build_objective(variant, beta, options)(
            PairLogps(ResponseLogps(sums, counts, sums), flat), PairLogps(flat, flat)
        )
        return torch.autograd.grad(result.losses.sum(), sums)[0].item()

    nine = torch.log(torch.tensor(9.0, dtype=torch.float64)).item()
    for variant, options, target in (
        ("cdpo", {"label_smoothing": 0.1}, nine / 0.5),
        ("exo", {"label_smoothing": 0.1}, nine / 0.5),
        ("ipo", {"normalization": "sum"}, 1 / (2 * 0.5)),
        ("sppo", {}, 1 / (2 * 0.5)),
    ):
        settings: Options = dict(options)
        assert slope(variant, 0.5, settings, target) == pytest.approx(0, abs=1e-12)
        assert slope(variant, 0.5, settings, target - 0.1) < 0 < slope(variant, 0.5, settings, target + 0.1)


# T18: extremes

EXTREMES = (-1e4, -1e-3, 0.0, 1e4)


def extreme_pairs(values: Tensor, log_weight: float) -> PairLogps:
    chosen, rejected = values[:, 0].contiguous(), values[:, 1].contiguous()
    counts = torch.ones_like(chosen, dtype=torch.int64)
    weights = torch.full_like(chosen.detach(), log_weight)
    return PairLogps(
        ResponseLogps(chosen, counts, chosen / 2, weights), ResponseLogps(rejected, counts, rejected / 2, weights)
    )


@pytest.mark.parametrize(("variant", "options"), SETTINGS)
@pytest.mark.parametrize("beta", [None, BETA_MIN, BETA_MAX])
def test_extremes_give_finite_losses_and_gradients(variant: str, options: Options, beta: float | None) -> None:
    grid = torch.tensor(list(itertools.product(EXTREMES, repeat=4)), dtype=torch.float32)
    objective = build_objective(variant, beta or VARIANTS[variant].default_beta, options)
    for log_weight in (-1e4, 0.0, 6.0):
        policy = grid[:, :2].clone().requires_grad_()
        result = objective(extreme_pairs(policy, log_weight), extreme_pairs(grid[:, 2:], log_weight))
        assert torch.isfinite(result.losses).all()
        assert torch.isfinite(result.chosen_rewards).all()
        assert torch.isfinite(result.rejected_rewards).all()
        (found,) = torch.autograd.grad(result.losses.sum(), policy)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("beta", [0.1, BETA_MIN, BETA_MAX])
def test_kto_extremes(beta: float) -> None:
    rows = list(itertools.product(EXTREMES, EXTREMES, (True, False)))
    sums = torch.tensor([row[0] for row in rows], requires_grad=True)
    reference, labels = torch.tensor([row[1] for row in rows]), torch.tensor([row[2] for row in rows])
    objective = build_unpaired_objective("kto", beta, {})
    for kl in (0.0, 2e4):
        result = objective(sums, reference, labels, torch.tensor(kl))
        (found,) = torch.autograd.grad(result.losses.sum(), sums)
        assert torch.isfinite(result.losses).all()
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log1mexp_keeps_its_digits(dtype: torch.dtype) -> None:
    """Against float64 forms that are exact where they are used: a series near 0, log1p far from it."""
    near, far = -torch.logspace(-5.5, -3, 20, dtype=torch.float64), -torch.logspace(-2, 2, 40, dtype=torch.float64)
    expected_near = torch.log(-near * (1 + near / 2 + near**2 / 6))
    expected_far = torch.log1p(-torch.exp(far))
    tolerance = 2e-6 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(log1mexp(near.to(dtype)).double(), expected_near, rtol=tolerance, atol=1e-12)
    torch.testing.assert_close(log1mexp(far.to(dtype)).double(), expected_far, rtol=tolerance, atol=1e-12)


def test_orpo_still_pushes_down_a_rejected_response_of_probability_one() -> None:
    sums, counts = torch.zeros(1, requires_grad=True), torch.tensor([3])
    low = torch.tensor([-6.0])
    policy = PairLogps(ResponseLogps(low, counts, low), ResponseLogps(sums, counts, sums))
    build_objective("orpo", 0.1, {})(policy, None).losses.sum().backward()
    assert sums.grad is not None
    assert sums.grad.item() > 0
    assert torch.isfinite(sums.grad).all()


@pytest.mark.parametrize("options", [{"divergence": "forward_kl"}, {"divergence": "alpha", "alpha": 1.0}])
def test_f_dpo_still_pulls_up_a_chosen_response_that_is_lost(options: Options) -> None:
    """Where the exponential would overflow, a clamp would leave no gradient."""
    sums, counts, zero = torch.tensor([-200.0], requires_grad=True), torch.tensor([3]), torch.zeros(1)
    flat = ResponseLogps(zero, counts, zero)
    policy = PairLogps(ResponseLogps(sums, counts, sums), flat)
    build_objective("f_dpo", 0.1, options)(policy, PairLogps(flat, flat)).losses.sum().backward()
    assert sums.grad is not None
    assert sums.grad.item() < 0
    assert torch.isfinite(sums.grad).all()


# T12: every option and beta is felt


def another_value(option: VariantOption) -> list[float | str]:
    if option.type == "string":
        return [choice for choice in option.choices if choice != option.default]
    assert isinstance(option.default, float)
    assert option.max is not None
    return [(option.default + option.max) / 2]


@pytest.mark.parametrize(("variant", "name"), [(name, option) for name in PAIRED for option in VARIANTS[name].options])
def test_every_option_changes_the_gradient(variant: str, name: str) -> None:
    option = VARIANTS[variant].options[name]
    companions: Mapping[str, float | str] = dict([option.only_with]) if option.only_with else {}
    beta = VARIANTS[variant].default_beta
    before = gradients(variant, beta, {name: option.default, **companions})
    for value in another_value(option):
        after = gradients(variant, beta, {name: value, **companions})
        assert not torch.allclose(before, after, rtol=1e-3, atol=0)


@pytest.mark.parametrize(("variant", "options"), SETTINGS)
def test_beta_changes_the_gradient(variant: str, options: Options) -> None:
    beta = VARIANTS[variant].default_beta
    assert not torch.allclose(
        gradients(variant, beta, options), gradients(variant, beta * 1.5, options), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("name", VARIANTS["kto"].options)
def test_every_option_of_kto_changes_the_gradient(name: str) -> None:
    sums = torch.tensor([-8.0, -5.0], requires_grad=True)
    found = []
    for value in (1.0, 2.0):
        objective = build_unpaired_objective("kto", 0.1, {name: value})
        losses = objective(sums, torch.tensor([-9.0, -7.0]), torch.tensor([True, False]), torch.tensor(0.5)).losses
        found.append(torch.autograd.grad(losses.sum(), sums)[0])
    assert not torch.allclose(found[0], found[1])
