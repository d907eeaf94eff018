"""`plackett_luce` on ranked lists: the closed form of the paper, its gradients, ties, and pairs alone."""

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor

from core.training.losses.objective import build_objective
from core.training.losses.values import PairLogps, ResponseLogps

BETA = 0.3
REWARDS = torch.tensor([-3.0, -5.5, -4.0, -7.0, -2.0], dtype=torch.float64)
"""Policy log-probabilities of five responses, best first; the reference gives each -4."""


def pairs_of(sums: Tensor, pairs: list[tuple[int, int]], lists: list[int] | None) -> PairLogps:
    def side(place: int) -> ResponseLogps:
        picked = sums[[pair[place] for pair in pairs]]
        return ResponseLogps(picked, torch.full((len(pairs),), 9), picked)

    return PairLogps(side(0), side(1), None if lists is None else torch.tensor(lists))


def loss_of(sums: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """The sum of the losses of all pairs, by name of the chosen response."""
    reference = pairs_of(torch.full_like(REWARDS, -4.0), pairs, None)
    policy = pairs_of(sums, pairs, [better for better, _ in pairs])
    return build_objective("plackett_luce", BETA, {})(policy, reference).losses.sum()


def plackett_luce(sums: Tensor) -> float:
    """arXiv:2305.18290, eq. 20: minus log of the product over k of exp(h_k) / sum over j >= k of exp(h_j)."""
    h = [BETA * (float(value) + 4.0) for value in sums]
    return -sum(h[k] - math.log(sum(math.exp(value) for value in h[k:])) for k in range(len(h)))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_pairs_of_a_ranking_make_the_papers_loss(size: int) -> None:
    pairs = list(combinations(range(size), 2))
    assert float(loss_of(REWARDS, pairs)) == pytest.approx(plackett_luce(REWARDS[:size]), rel=1e-12)
    assert float(loss_of(REWARDS, pairs[::-1])) == pytest.approx(plackett_luce(REWARDS[:size]), rel=1e-12)


def test_gradients_equal_finite_differences() -> None:
    sums = REWARDS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda inputs: loss_of(inputs, list(combinations(range(5), 2))), (sums,))


def test_responses_of_equal_rank_do_not_compete() -> None:
    """0 above 1 and 2, which are equal, above 3."""
    tied = [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]
    h = [BETA * (float(value) + 4.0) for value in REWARDS]
    groups = [(0, (0, 1, 2, 3)), (1, (1, 3)), (2, (2, 3))]
    expected = -sum(h[k] - math.log(sum(math.exp(h[j]) for j in rest)) for k, rest in groups)
    assert float(loss_of(REWARDS, tied)) == pytest.approx(expected, rel=1e-12)


def test_at_the_reference_a_list_costs_its_permutations() -> None:
    """-log(1/4!) for four responses, shared out among six pairs."""
    assert float(loss_of(torch.full_like(REWARDS, -4.0), list(combinations(range(4), 2)))) == pytest.approx(
        math.log(math.factorial(4)), rel=1e-12
    )
