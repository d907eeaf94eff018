"""DPO reaches the optimum that theory gives: pi*(y|x) proportional to pi_ref(y|x) exp(r(x, y) / beta).

Every ordered pair of a small, finite response set is weighted with the probability that a Bradley-Terry labeller with
the known reward r prefers it, so the expected loss is exact and its minimum is known in closed form
(arXiv:2305.18290, eqs. 4 and 6). Everything goes through the real objectives.
"""

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from core.training.losses.divergences import alpha_slope, forward_kl_slope, jensen_shannon_slope
from core.training.losses.objective import Objective, build_objective
from core.training.losses.values import PairLogps, ResponseLogps


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Such small tensors are slower on two threads than on one."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


BETA = 0.4
PAIRS = torch.tensor(list(itertools.permutations(range(6), 2)))
"""[30, 2] every ordered pair of six responses."""


def gather_pairs(logps: Tensor) -> PairLogps:
    """[P, 6] log-probabilities of the responses to P prompts -> P * 30 pairs."""
    ones = torch.ones(logps.shape[0] * len(PAIRS), dtype=torch.int64)
    chosen, rejected = (logps[:, PAIRS[:, side]].reshape(-1) for side in (0, 1))
    return PairLogps(ResponseLogps(chosen, ones, chosen), ResponseLogps(rejected, ones, rejected))


def preference_probabilities(rewards: Tensor) -> Tensor:
    """[P * 30] probability that a Bradley-Terry labeller prefers the first response of each ordered pair."""
    return torch.sigmoid(rewards[:, PAIRS[:, 0]] - rewards[:, PAIRS[:, 1]]).reshape(-1)


def total_variation(first: Tensor, second: Tensor) -> Tensor:
    """[P] half the L1 distance of two distributions [P, 6]."""
    return (first - second).abs().sum(-1) / 2


def tilted(reference_logps: Tensor, rewards: Tensor) -> Tensor:
    """[P, 6] pi_ref(y|x) exp(r / beta), normalised over the response set."""
    return torch.softmax(reference_logps + rewards / BETA, dim=-1)


def expected_loss(objective: Objective, logps: Tensor, reference_logps: Tensor, weights: Tensor) -> Tensor:
    losses = objective(gather_pairs(logps), gather_pairs(reference_logps)).losses
    return (weights * losses).sum() / weights.sum()


def make_problem() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    reference = torch.log_softmax(torch.randn(4, 6, generator=generator, dtype=torch.float64), dim=-1)
    return reference, torch.randn(4, 6, generator=generator, dtype=torch.float64)


def train_table(objective: Objective, reference: Tensor, weights: Tensor) -> Tensor:
    """[P, 6] log-probabilities of a tabular softmax policy at the minimum of the expected loss."""
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=2000, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = expected_loss(objective, torch.log_softmax(logits, dim=-1), reference, weights)
        loss.backward()
        return loss

    optimizer.step(closure)
    return torch.log_softmax(logits.detach(), dim=-1)


def test_tabular_policy_reaches_the_optimum() -> None:
    reference, rewards = make_problem()
    optimum = tilted(reference, rewards)
    assert total_variation(reference.exp(), optimum).min() > 0.1, "nothing to learn"
    policy = train_table(build_objective("dpo", BETA, {}), reference, preference_probabilities(rewards))
    assert total_variation(policy.exp(), optimum).max() < 0.01
    wrong_beta = train_table(build_objective("dpo", 2 * BETA, {}), reference, preference_probabilities(rewards))
    assert total_variation(wrong_beta.exp(), optimum).max() > 0.05


def test_robust_dpo_reaches_the_same_optimum_from_swapped_labels() -> None:
    """A quarter of the labels swapped: DPO lands elsewhere, robust DPO told so does not (arXiv:2403.00409)."""
    reference, rewards = make_problem()
    clean = preference_probabilities(rewards)
    noisy = 0.75 * clean + 0.25 * (1 - clean)
    optimum = tilted(reference, rewards)
    robust = train_table(build_objective("robust", BETA, {"label_smoothing": 0.25}), reference, noisy)
    assert total_variation(robust.exp(), optimum).max() < 0.01
    fooled = train_table(build_objective("dpo", BETA, {}), reference, noisy)
    assert total_variation(fooled.exp(), optimum).max() > 0.05


@pytest.mark.parametrize(
    ("options", "slope"),
    [
        ({"divergence": "forward_kl"}, forward_kl_slope),
        ({"divergence": "js"}, jensen_shannon_slope),
        ({"divergence": "alpha", "alpha": 0.5}, alpha_slope(0.5)),
    ],
)
def test_f_dpo_satisfies_its_own_optimality(options: dict[str, str | float], slope: Callable[[Tensor], Tensor]) -> None:
    """At the optimum beta f'(pi / pi_ref) equals the reward up to a constant per prompt (arXiv:2309.16240)."""
    reference, rewards = make_problem()
    policy = train_table(build_objective("f_dpo", BETA, options), reference, preference_probabilities(rewards))
    found = BETA * slope(policy - reference)
    differences = (found - found[:, :1]) - (rewards - rewards[:, :1])
    assert differences.abs().max() < 0.01
    assert total_variation(policy.exp(), tilted(reference, rewards)).max() > 0.02, "another optimum than DPO's"


PROMPTS = torch.tensor([[1, 4, 5], [1, 6, 7]])
RESPONSES = ([8, 2], [9, 2], [8, 9, 2], [9, 8, 2], [9, 9, 8, 2], [8, 8, 9, 2])


def response_logps(model: LlamaForCausalLM) -> Tensor:
    """[2, 6] log-probability of each response to each prompt."""
    length = PROMPTS.shape[1] + max(map(len, RESPONSES))
    rows = [[*prompt, *response] for prompt in PROMPTS.tolist() for response in RESPONSES]
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    scored = torch.tensor([[PROMPTS.shape[1] <= t < len(row) for t in range(length)] for row in rows])
    logps = torch.log_softmax(model(input_ids=tokens[:, :-1]).logits, dim=-1)
    token_logps = logps.gather(-1, tokens[:, 1:, None])[..., 0]
    return (token_logps * scored[:, 1:]).sum(-1).view(len(PROMPTS), len(RESPONSES))


def test_transformer_reaches_the_optimum_on_its_response_set() -> None:
    """DPO fixes the odds inside the set: compared is the distribution given that the response is one of the six."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=10,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config)
    reference = response_logps(model).detach()
    rewards = torch.tensor([[0.5, -0.3, 0.2, -0.4, 0.6, 0.0], [-0.5, 0.4, -0.1, 0.6, 0.0, -0.2]])
    optimum, weights = tilted(reference, rewards), preference_probabilities(rewards)
    objective = build_objective("dpo", BETA, {})
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=250)
    for _ in range(250):
        optimizer.zero_grad()
        expected_loss(objective, response_logps(model), reference, weights).backward()
        optimizer.step()
        schedule.step()
    policy = torch.softmax(response_logps(model).detach(), dim=-1)
    assert total_variation(torch.softmax(reference, dim=-1), optimum).min() > 0.1
    assert total_variation(policy, optimum).max() < 0.01
