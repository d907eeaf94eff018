"""What texts that begin alike share in training: agreed between the engine, which does it, and estimates."""

from collections.abc import Hashable, Sequence

MIN_SHARED_TOKENS = 4
"""A shorter beginning costs less to compute twice than to attend to as a prefix."""
LARGEST_WHOLE = 1.5
"""The responses of one prompt, up to so many times the budget, run together: cut, they would run more than once."""
RANKED_SHARE = 0.75
"""A dataset is ranked when its pairs name so few different responses: three answers to a prompt are half as many."""


def is_ranked(texts: Sequence[tuple[Hashable, Hashable, Hashable]]) -> bool:
    """Whether responses stand in several pairs, as those of ranked lists do.

    Args:
        texts: prompt, chosen and rejected response of each pair, or what is equal where they are.
    """
    named = {(prompt, response) for prompt, *responses in texts for response in responses}
    return bool(texts) and len(named) <= RANKED_SHARE * 2 * len(texts)
