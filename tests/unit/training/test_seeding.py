import subprocess
import sys

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


DRAWS = """
import random
import numpy as np
import torch
from core.training.seeding import seed_all
for _ in range(2):
    seed_all(2**40 + 7)
    print(random.random(), np.random.random(), float(torch.rand(())))
"""


def test_all_generators_are_seeded() -> None:
    """Drawn in a process of its own: threads of other tests draw from the same global generators here."""
    done = subprocess.run([sys.executable, "-c", DRAWS], capture_output=True, text=True, check=True, timeout=120)
    first, second = done.stdout.splitlines()
    assert first == second
    assert len(set(first.split())) == 3


def test_a_captured_state_continues_the_sequence() -> None:
    seed_all(3)
    state = capture_rng()
    expected = torch.rand(5)
    torch.rand(7)
    restore_rng(state)
    assert torch.equal(torch.rand(5), expected)
