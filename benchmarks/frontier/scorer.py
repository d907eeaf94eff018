"""Ground truth: a public scorer of sentiment, and preferences that follow it by Bradley–Terry."""

import importlib
import math
from collections.abc import Callable

Score = Callable[[str], float]
"""From a text to its sentiment in [-1, 1]."""
VADER = "frontier.vader:score"
SCALE = 5.0
"""Reward of a text: its sentiment times this. Texts half a unit apart are then preferred with probability 0.92."""


def load_scorer(name: str) -> Score:
    """Return the function `module:name`."""
    module, _, function = name.partition(":")
    found: Score = getattr(importlib.import_module(module), function)
    return found


def preference(reward: float, other: float) -> float:
    """Return the probability that the first is preferred: σ(reward − other)."""
    margin = reward - other
    return 1 / (1 + math.exp(-margin)) if margin >= 0 else math.exp(margin) / (1 + math.exp(margin))
