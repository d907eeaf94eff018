"""Losses of the log-ratio margin: how much more the policy prefers the chosen response than the reference does.

Legend: rho = log-ratio of a response; w chosen, l rejected; D = rho_w - rho_l; all [B]; ls = log sigmoid.
Each function: policy and reference log-probabilities in, one loss per pair and detached rewards beta * rho out.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from core.training.losses.divergences import Divergence
from core.training.losses.scores import PairScores, Score, log_ratios, mean_score, sum_score
from core.training.losses.values import PairLogps, PairLosses


def with_rewards(losses: Tensor, rewards: PairScores, beta: float) -> PairLosses:
    """Attach implicit rewards, beta times the given scores, detached."""
    return PairLosses(losses, beta * rewards.chosen.detach(), beta * rewards.rejected.detach())


def smoothed_logistic(logits: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of sigmoid(logits) with the label 1 - label_smoothing, [B] (ericmitchell.ai/cdpo.pdf, eq. 3)."""
    return -(1 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)


def dpo_loss(policy: PairLogps, reference: PairLogps, *, beta: float, score: Score = sum_score) -> PairLosses:
    """DPO: -ls(beta D). With `mean_score`: length-normalised DPO; with a length-desensitised score: LD-DPO."""
    log_ratio = log_ratios(policy, reference, score)
    losses = -logsigmoid(beta * log_ratio.margin)  # arXiv:2305.18290, eq. 7
    return with_rewards(losses, log_ratio, beta)


def plackett_luce_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> PairLosses:
    """DPO on ranked lists: log(1 + sum over l of exp(beta (rho_l - rho_w))), shared out among the n pairs of w.

    The factors of a Plackett-Luce ranking, one for each response and those ranked below it, which its pairs name;
    responses of equal rank, of which there is no pair, do not compete.
    """
    log_ratio = log_ratios(policy, reference)
    logits = -beta * log_ratio.margin  # arXiv:2305.18290, eq. 20, with the numerator taken into the sum
    if policy.lists is None:
        return with_rewards(softplus(logits), log_ratio, beta)
    is_same = policy.lists[:, None] == policy.lists[None, :]
    table = torch.where(is_same, logits[None, :], -torch.inf)
    terms = torch.logsumexp(torch.cat((torch.zeros_like(logits)[:, None], table), dim=1), dim=1)
    return with_rewards(terms / is_same.sum(1), log_ratio, beta)


def cdpo_loss(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float) -> PairLosses:
    """Conservative DPO: -(1 - eps) ls(beta D) - eps ls(-beta D)."""
    log_ratio = log_ratios(policy, reference)
    losses = smoothed_logistic(beta * log_ratio.margin, label_smoothing)  # ericmitchell.ai/cdpo.pdf, eq. 3
    return with_rewards(losses, log_ratio, beta)


def robust_loss(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float) -> PairLosses:
    """Robust DPO: [-(1 - eps) ls(beta D) + eps ls(-beta D)] / (1 - 2 eps), the unbiased estimate on clean labels."""
    log_ratio = log_ratios(policy, reference)
    logits = beta * log_ratio.margin
    kept, swapped = -logsigmoid(logits), -logsigmoid(-logits)
    # arXiv:2403.00409, the rDPO loss
    losses = ((1 - label_smoothing) * kept - label_smoothing * swapped) / (1 - 2 * label_smoothing)
    return with_rewards(losses, log_ratio, beta)


def ipo_loss(policy: PairLogps, reference: PairLogps, *, beta: float, score: Score) -> PairLosses:
    """IPO: (D - 1/(2 beta))^2. The authors' code sums over tokens; they confirmed that the paper used the mean."""
    log_ratio = log_ratios(policy, reference, score)
    losses = (log_ratio.margin - 1 / (2 * beta)) ** 2  # arXiv:2310.12036, eq. 17 (beta is its tau)
    return with_rewards(losses, log_ratio, beta)


def hinge_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> PairLosses:
    """Hinge loss (SLiC): max(0, 1 - beta D)."""
    log_ratio = log_ratios(policy, reference)
    losses = torch.relu(1 - beta * log_ratio.margin)  # arXiv:2309.06657, the hinge-norm loss (beta is its gamma)
    return with_rewards(losses, log_ratio, beta)


def r_dpo_loss(policy: PairLogps, reference: PairLogps, *, beta: float, alpha: float) -> PairLosses:
    """R-DPO: -ls(beta D + alpha (|y_w| - |y_l|)); a longer chosen response is trained on less."""
    log_ratio = log_ratios(policy, reference)
    extra_tokens = (policy.chosen.num_tokens - policy.rejected.num_tokens).to(log_ratio.chosen.dtype)
    losses = -logsigmoid(beta * log_ratio.margin + alpha * extra_tokens)  # arXiv:2403.19159, the R-DPO loss
    return with_rewards(losses, log_ratio, beta)


def rpo_loss(policy: PairLogps, reference: PairLogps, *, beta: float, alpha: float) -> PairLosses:
    """RPO: -ls(beta D) - alpha S_w / |y_w|.

    The likelihood term is one mean per sequence over the scored response tokens: not a mean over the tokens of the
    micro-batch, and no prompt tokens. So it does not depend on how a step is cut into micro-batches.
    """
    log_ratio = log_ratios(policy, reference)
    # arXiv:2404.19733, eq. 1, with the weight on the likelihood term
    losses = -logsigmoid(beta * log_ratio.margin) - alpha * mean_score(policy.chosen)
    return with_rewards(losses, log_ratio, beta)


def dpop_loss(policy: PairLogps, reference: PairLogps, *, beta: float, penalty: float) -> PairLosses:
    """DPO-Positive: -ls(beta (D - penalty max(0, -rho_w))); penalises a chosen response below the reference."""
    log_ratio = log_ratios(policy, reference)
    shortfall = torch.relu(-log_ratio.chosen)
    losses = -logsigmoid(beta * (log_ratio.margin - penalty * shortfall))  # arXiv:2402.13228, eq. 3
    return with_rewards(losses, log_ratio, beta)


def exo_loss(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float) -> PairLosses:
    """EXO: KL(q || p), q = sigmoid(beta D) against the smoothed label p = 1 - eps."""
    log_ratio = log_ratios(policy, reference)
    logits = beta * log_ratio.margin
    chosen_term = torch.sigmoid(logits) * (logsigmoid(logits) - math.log1p(-label_smoothing))
    rejected_term = torch.sigmoid(-logits) * (logsigmoid(-logits) - math.log(label_smoothing))
    return with_rewards(chosen_term + rejected_term, log_ratio, beta)  # arXiv:2402.00856, eq. 16


def discopop_loss(policy: PairLogps, reference: PairLogps, *, beta: float, tau: float) -> PairLosses:
    """DiscoPOP: (1 - m)(-ls(u)) + m exp(-u) with u = beta D, m = sigmoid(u / tau), tau in (0, 1]."""
    log_ratio = log_ratios(policy, reference)
    logits = beta * log_ratio.margin
    logistic_term = -torch.sigmoid(-logits / tau) * logsigmoid(logits)
    # m exp(-u) in one exponent: apart, exp(-u) overflows and m underflows where u << 0. Below 0 here for tau <= 1.
    exponential_term = torch.exp(logsigmoid(logits / tau) - logits)
    return with_rewards(logistic_term + exponential_term, log_ratio, beta)  # arXiv:2406.08414, eq. 5


def f_dpo_loss(policy: PairLogps, reference: PairLogps, *, beta: float, divergence: Divergence) -> PairLosses:
    """f-DPO: -ls(beta (f'(exp rho_w) - f'(exp rho_l))). Rewards are beta f'(exp rho), up to a constant per prompt."""
    log_ratio = log_ratios(policy, reference)
    slopes = PairScores(chosen=divergence(log_ratio.chosen), rejected=divergence(log_ratio.rejected))
    losses = -logsigmoid(beta * slopes.margin)  # arXiv:2309.16240, the f-DPO loss
    return with_rewards(losses, slopes, beta)


def wpo_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> PairLosses:
    """WPO: -v_w v_l ls(beta D); v = exp(log_weights), the policy's own likelihood of the response, unclamped.

    Raises:
        ValueError: the policy's `log_weights` were not computed.
    """
    if policy.chosen.log_weights is None or policy.rejected.log_weights is None:
        raise ValueError("`wpo` needs the policy's log_weights")
    log_ratio = log_ratios(policy, reference)
    weights = torch.exp(policy.chosen.log_weights + policy.rejected.log_weights).detach()  # arXiv:2406.11827, eq. 2
    losses = -weights * logsigmoid(beta * log_ratio.margin)
    return with_rewards(losses, log_ratio, beta)
