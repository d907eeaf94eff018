"""Preference pairs: two continuations of an opening that a policy has drawn, labelled by the ground truth."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from frontier.policies import Policy, Sample
from frontier.scorer import preference


@dataclass(frozen=True, kw_only=True)
class Pair:
    opening: str
    chosen: str
    rejected: str
    agrees: bool
    """The chosen one has no less reward."""

    @property
    def row(self) -> dict[str, str]:
        """Return the pair as a row of a dataset."""
        return {"prompt": self.opening, "chosen": self.chosen, "rejected": self.rejected}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How pairs are drawn."""

    reward: Callable[[str], float]
    max_new_tokens: int
    needs_end: bool
    """Only continuations that end by themselves are taken."""
    seeds: tuple[int, int]
    """Of the two continuations."""


def draw_pairs(policy: Policy, openings: Sequence[str], how: Drawing) -> list[Pair | None]:
    """Return a pair for each opening, by Bradley–Terry; None where both are the same, or one does not count."""
    drawn = [policy.sample(openings, max_new_tokens=how.max_new_tokens, seed=seed) for seed in how.seeds]
    rng = random.Random(how.seeds[0])
    return [_label(opening, one, other, how, rng) for opening, one, other in zip(openings, *drawn, strict=True)]


def _label(opening: str, one: Sample, other: Sample, how: Drawing, rng: random.Random) -> Pair | None:
    is_whole = all(item.text.strip() and (item.is_ended or not how.needs_end) for item in (one, other))
    if one.text == other.text or not is_whole:
        return None
    reward, rival = (how.reward(opening + item.text) for item in (one, other))
    is_first = rng.random() < preference(reward, rival)
    chosen, rejected = (one, other) if is_first else (other, one)
    agrees = reward >= rival if is_first else rival >= reward
    return Pair(opening=opening, chosen=chosen.text, rejected=rejected.text, agrees=agrees)
