"""Sampling of one answer: extreme settings that requests may have."""

import pytest
import torch

from worker.processes.generation.sampling import Sampler, choose

LOGITS = torch.tensor([3.0, 40.0, -20.0, 39.0])


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-45, 1e-38, 1e-6, 1e-4])
@pytest.mark.parametrize("top_p", [5e-324, 1e-45, 1.0])
def test_the_smallest_temperature_and_nucleus_give_the_likeliest_token(temperature: float, top_p: float) -> None:
    (choice,) = choose(LOGITS[None], [Sampler(temperature=temperature, top_p=top_p, seed=1)])
    assert choice.token_id == 1


def test_an_empty_nucleus_keeps_the_likeliest_token() -> None:
    assert {Sampler(temperature=2, top_p=1e-320, seed=seed).choose(LOGITS) for seed in range(20)} == {1}
