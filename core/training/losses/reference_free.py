"""Losses without a reference: of the policy's own log-probabilities.

Legend: S = sum of the log-probabilities of a response, Sbar = S / |y| with |y| its scored tokens; w chosen,
l rejected; all [B]; ls = log sigmoid. Likelihood terms are one mean per sequence, -Sbar_w, over the scored response
tokens: never over prompt tokens, and never over the tokens of a micro-batch.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from core.training.losses.margin import with_rewards
from core.training.losses.scores import mean_score, pair_scores, sum_score
from core.training.losses.values import PairLogps, PairLosses

_LARGEST_LOGP = -1e-6
"""Nearer to 0 than this, log(1 - p) goes on as its tangent: p = 1 has infinite odds, and float32 reaches it."""


def reference_free_loss(policy: PairLogps, *, beta: float) -> PairLosses:
    """Reference-free DPO: -ls(beta (S_w - S_l)), as with a uniform reference. Rewards are beta S."""
    scores = pair_scores(policy, sum_score)
    losses = -logsigmoid(beta * scores.margin)  # arXiv:2305.18290, eq. 7 with a uniform reference
    return with_rewards(losses, scores, beta)


def simpo_loss(policy: PairLogps, *, beta: float, gamma: float) -> PairLosses:
    """SimPO: -ls(beta (Sbar_w - Sbar_l) - gamma). Rewards are beta Sbar."""
    scores = pair_scores(policy, mean_score)
    losses = -logsigmoid(beta * scores.margin - gamma)  # arXiv:2405.14734, eq. 6
    return with_rewards(losses, scores, beta)


def orpo_loss(policy: PairLogps, *, beta: float) -> PairLosses:
    """ORPO: -Sbar_w - beta ls(log odds_w - log odds_l), odds = p / (1 - p), p = exp(Sbar). Rewards are beta Sbar."""
    scores = pair_scores(policy, mean_score)
    log_odds_ratio = scores.margin - (log1mexp(scores.chosen) - log1mexp(scores.rejected))
    losses = -scores.chosen - beta * logsigmoid(log_odds_ratio)  # arXiv:2403.07691, eqs. 6 and 7 (beta is its lambda)
    return with_rewards(losses, scores, beta)


def cpo_loss(policy: PairLogps, *, beta: float, alpha: float) -> PairLosses:
    """CPO: -ls(beta (S_w - S_l)) - alpha Sbar_w. Rewards are beta S."""
    scores = pair_scores(policy, sum_score)
    # arXiv:2401.08417, eq. 3 and its likelihood term, here per token
    losses = -logsigmoid(beta * scores.margin) - alpha * mean_score(policy.chosen)
    return with_rewards(losses, scores, beta)


def unlikelihood_loss(policy: PairLogps, *, beta: float) -> PairLosses:
    """Unlikelihood: -S_w + beta S_l. Rewards are beta S."""
    scores = pair_scores(policy, sum_score)
    losses = beta * scores.rejected - scores.chosen  # arXiv:2305.18290, section 6 (beta is its alpha)
    return with_rewards(losses, scores, beta)


def log1mexp(logp: Tensor) -> Tensor:
    """Compute log(1 - exp(x)) for log-probabilities x <= 0, finite and with a finite gradient up to x = 0.

    Two forms, each where it keeps its digits (https://cran.r-project.org/package=Rmpfr, "log1mexp-note"): next to 0
    the difference 1 - exp(x) cancels, far from 0 expm1 is rounded to -1.
    """
    inner = logp.clamp(max=_LARGEST_LOGP)
    is_near = inner > -math.log(2)
    # Each branch sees only values of its own side: `where` alone would let NaN gradients of the other through.
    near = torch.log(-torch.expm1(inner.clamp(min=-math.log(2))))
    far = torch.log1p(-torch.exp(inner.clamp(max=-math.log(2))))
    slope_at_largest = -1 / math.expm1(-_LARGEST_LOGP)
    # relu, not the difference to the clamped value: two gradients of 10^6 would have to cancel everywhere.
    return torch.where(is_near, near, far) + slope_at_largest * torch.relu(logp - _LARGEST_LOGP)
