"""Which micro-batch a prediction leads to."""

from dataclasses import replace

import pytest

from core.training.stages.memory_costs import StepCosts
from core.training.stages.micro_batch import RowSizes, choose_micro_batch

COSTS = StepCosts(
    optimizer_bytes=1000,
    token_bytes=100.0,
    layer_token_bytes=10.0,
    boundary_token_bytes=5.0,
    score_bytes=0,
    scored_token_bytes=20,
    logits_bytes=7,
    tile_bytes=70,
    tile_copies=3,
    working_bytes=500,
)
ROWS = RowSizes(longest=300, scored_share=0.5)


def test_a_step_is_the_sum_of_its_parts() -> None:
    costs = replace(COSTS, score_bytes=2)
    rest = 1000 + 20 * 500 + 3 * 70 + 500
    assert costs.step_bytes(1000, 500, 40, checkpoints_activations=False) == (110 + 2 * 40) * 1000 + rest
    assert costs.step_bytes(1000, 500, 5000, checkpoints_activations=False) == (110 + 2 * 512) * 1000 + rest
    assert costs.step_bytes(1000, 500, 40, checkpoints_activations=True) == 25 * 1000 + rest


@pytest.mark.parametrize(
    ("available", "tokens", "recomputes"),
    [
        (1_000_000, 2048, False),
        (200_000, 1024, False),
        (100_000, 512, False),  # 62 940 bytes
        (65_000, 1024, True),  # 37 340; at 2048 tokens it takes 73 180
        (22_000, 512, True),
        (1_000, 256, True),  # nothing fits: the smallest that holds the longest row
    ],
)
def test_halves_first_and_computes_twice_when_halving_no_longer_pays(
    available: int, tokens: int, recomputes: bool
) -> None:
    choice = choose_micro_batch(COSTS, ROWS, 2048, available)
    assert (choice.tokens, choice.checkpoints_activations) == (tokens, recomputes)


def test_a_resumed_run_keeps_its_micro_batches() -> None:
    choice = choose_micro_batch(COSTS, ROWS, 2048, 100_000, may_halve=False)
    assert (choice.tokens, choice.checkpoints_activations) == (2048, True)


def test_a_row_longer_than_the_budget_counts_whole() -> None:
    rows = RowSizes(longest=5000, scored_share=0.5)
    choice = choose_micro_batch(COSTS, rows, 2048, 10_000_000)
    assert choice.step_bytes == COSTS.step_bytes(5000, 2500, 5000, checkpoints_activations=False)
