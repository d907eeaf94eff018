import random

import numpy as np
import torch

from core.training.seeding import capture_rng, derive_seed, restore_rng, seed_all


def test_seeds_differ_by_purpose_and_stay_the_same() -> None:
    seeds = [
        derive_seed(0, "order", 0),
        derive_seed(0, "order", 1),
        derive_seed(1, "order", 0),
        derive_seed(0, "order"),
    ]
    assert len(set(seeds)) == 4
    assert seeds[0] == derive_seed(0, "order", 0)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_parts_of_a_purpose_do_not_run_together() -> None:
    assert derive_seed(0, "a", "bc") != derive_seed(0, "ab", "c")


def test_all_generators_are_seeded() -> None:
    draws = []
    for _ in range(2):
        seed_all(2**40 + 7)
        draws.append((random.random(), float(np.random.random()), float(torch.rand(()))))
    assert draws[0] == draws[1]


def test_a_captured_state_continues_the_sequence() -> None:
    seed_all(3)
    state = capture_rng()
    expected = torch.rand(5)
    torch.rand(7)
    restore_rng(state)
    assert torch.equal(torch.rand(5), expected)
