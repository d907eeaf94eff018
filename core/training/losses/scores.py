"""Scores: one number per response out of its token log-probabilities. One score serves policy and reference alike.

A loss is a *score* (how token log-probabilities become one number per response) and a *link* (how the numbers of a
pair become a loss). `log_ratios` is the only place where policy and reference meet, so the two cannot be scored
differently: at step 0 every log-ratio is exactly 0.

Legend: B pairs; S = sum of the log-probabilities of a response, |y| = its scored tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from core.training.losses.values import PairLogps, ResponseLogps

Score = Callable[[ResponseLogps], Tensor]
"""[B] one score per response, in nats (or nats per token)."""


@dataclass(frozen=True)
class PairScores:
    """One number per response of each pair: scores under one model, or log-ratios."""

    chosen: Tensor
    """[B]"""
    rejected: Tensor
    """[B]"""

    @property
    def margin(self) -> Tensor:
        """Chosen score minus rejected score, [B]."""
        return self.chosen - self.rejected


def sum_score(response: ResponseLogps) -> Tensor:
    """Log-probability of the whole response, S [B]."""
    return response.sums


def mean_score(response: ResponseLogps) -> Tensor:
    """Mean log-probability of a scored token, S / |y| [B]."""
    return response.sums / response.num_tokens


def length_desensitised_score(alpha: float) -> Score:
    """S over the length that both responses share, plus alpha times the rest (arXiv:2409.06411, LD-DPO)."""

    def score(response: ResponseLogps) -> Tensor:
        return response.prefix_sums + alpha * (response.sums - response.prefix_sums)

    return score


def pair_scores(logps: PairLogps, score: Score) -> PairScores:
    """Score both responses of each pair under one model."""
    return PairScores(chosen=score(logps.chosen), rejected=score(logps.rejected))


def log_ratios(policy: PairLogps, reference: PairLogps, score: Score = sum_score) -> PairScores:
    """Return policy score - reference score of the same response; no gradient reaches the reference."""
    ours, theirs = pair_scores(policy, score), pair_scores(reference, score)
    return PairScores(ours.chosen - theirs.chosen.detach(), ours.rejected - theirs.rejected.detach())
