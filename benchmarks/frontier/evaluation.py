"""Evaluation of one policy: reward of what it writes, and divergence from the SFT policy, on the same openings."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from frontier.policies import Policy, Sample, sequence_kls
from frontier.scorer import SCALE, Score

from core.domain.training.comparisons import Estimated, mean_with_interval

SEED = 11
"""Seed of all draws that are evaluated: the same random numbers for every policy."""


class Evaluator:
    """Judges policies on openings that nothing was trained on."""

    def __init__(self, reference: Path, openings: Sequence[str], score: Score, max_new_tokens: int) -> None:
        self._folder = reference
        self._reference: Policy | None = None
        self._openings = openings
        self._score = score
        self._max_new_tokens = max_new_tokens

    def point(self, folder: Path, step: int) -> dict[str, Any]:
        """Return reward and divergence, nats per continuation, of the policy in a folder."""
        policy = Policy(folder)
        samples = policy.sample(self._openings, max_new_tokens=self._max_new_tokens, seed=SEED)
        if self._reference is None:
            self._reference = Policy(self._folder)
        kls = sequence_kls(policy, self._reference, samples)
        if not all(map(math.isfinite, kls)):
            raise SystemExit(f"the policy of step {step} has probabilities that are not finite")
        rewards = self.rewards(self._openings, samples)
        return {
            "step": step,
            "reward": asdict(mean_with_interval(rewards)),
            "kl": asdict(mean_with_interval(kls)),
            "rewards": [round(reward, 4) for reward in rewards],
            "ended": sum(sample.is_ended for sample in samples) / len(samples),
            "mean_tokens": sum(len(sample.token_ids) for sample in samples) / len(samples),
            "example": self._openings[0] + samples[0].text,
        }

    def rewards(self, openings: Sequence[str], samples: Sequence[Sample]) -> list[float]:
        """Return the ground-truth reward of each text."""
        return [self.reward(opening + sample.text) for opening, sample in zip(openings, samples, strict=True)]

    def reward(self, text: str) -> float:
        return SCALE * self._score(text)


def win_rate(rewards: Sequence[float], others: Sequence[float]) -> Estimated:
    """Return the share of texts with the larger reward, a draw counting half, with its 95 % interval."""
    return mean_with_interval([
        1.0 if mine > theirs else 0.5 if mine == theirs else 0.0
        for mine, theirs in zip(rewards, others, strict=True)
    ])  # fmt: skip
