"""Shorter draws: of a run of the engine on a tiny model, drawing answers for the sampled divergence was a fifth."""

from collections.abc import Iterator

import pytest

from core.training.measures import reference_kl

NUM_TOKENS = 6


@pytest.fixture(scope="module", autouse=True)
def short_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference_kl, "MAX_NEW_TOKENS", NUM_TOKENS)
        yield
