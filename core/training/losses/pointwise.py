"""Losses of each response's own log-ratio, or of its quantile in the batch, rather than of a pair's margin.

Legend: rho = log-ratio of a response; w chosen, l rejected; all [B]; ls = log sigmoid, sig = sigmoid.
Each function: policy and reference log-probabilities in, one loss per pair and detached rewards beta * rho out.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from core.training.losses.margin import smoothed_logistic, with_rewards
from core.training.losses.scores import log_ratios, pair_scores, sum_score
from core.training.losses.values import PairLogps, PairLosses

QuantileMargins = Callable[[PairLogps, PairLogps], Tensor]


def apo_zero_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> PairLosses:
    """APO-zero: (1 - sig(beta rho_w)) + sig(beta rho_l)."""
    log_ratio = log_ratios(policy, reference)
    # arXiv:2408.06266, eq. 7
    losses = torch.sigmoid(-beta * log_ratio.chosen) + torch.sigmoid(beta * log_ratio.rejected)
    return with_rewards(losses, log_ratio, beta)


def apo_down_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> PairLosses:
    """APO-down: sig(beta rho_w) + (1 - sig(beta (rho_w - rho_l)))."""
    log_ratio = log_ratios(policy, reference)
    # arXiv:2408.06266, eq. 8
    losses = torch.sigmoid(beta * log_ratio.chosen) + torch.sigmoid(-beta * log_ratio.margin)
    return with_rewards(losses, log_ratio, beta)


def nca_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> PairLosses:
    """NCA: -ls(r_w) - ls(-r_w)/2 - ls(-r_l)/2 with r = beta rho."""
    log_ratio = log_ratios(policy, reference)
    chosen, rejected = beta * log_ratio.chosen, beta * log_ratio.rejected
    # arXiv:2402.05369, the NCA loss with K = 2 and the chosen response as the only positive
    losses = -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)
    return with_rewards(losses, log_ratio, beta)


def bco_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> PairLosses:
    """BCO: -ls(beta rho_w) - ls(-beta rho_l), without the paper's running baseline of rewards (its delta is 0)."""
    log_ratio = log_ratios(policy, reference)
    # arXiv:2404.04656, the BCO loss with delta = 0
    losses = -logsigmoid(beta * log_ratio.chosen) - logsigmoid(-beta * log_ratio.rejected)
    return with_rewards(losses, log_ratio, beta)


def sppo_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> PairLosses:
    """SPPO: (rho_w - 1/(2 beta))^2 + (rho_l + 1/(2 beta))^2; chosen wins with P = 1, rejected with P = 0."""
    log_ratio = log_ratios(policy, reference)
    target = 1 / (2 * beta)
    # arXiv:2405.00675, eq. 4.7 with P = 1 and 0, eta = 1 / beta
    losses = (log_ratio.chosen - target) ** 2 + (log_ratio.rejected + target) ** 2
    return with_rewards(losses, log_ratio, beta)


def aot_loss(
    policy: PairLogps,
    reference: PairLogps,
    *,
    beta: float,
    label_smoothing: float,
    quantile_margins: QuantileMargins,
) -> PairLosses:
    """AOT: -(1 - eps) ls(beta d) - eps ls(-beta d) for the margin d between equal quantiles over the batch.

    `losses[i]` is that of the i-th quantile, not of the i-th pair; the rewards stay with their pairs.
    """
    margins = quantile_margins(policy, reference)
    losses = smoothed_logistic(beta * margins, label_smoothing)  # arXiv:2406.05882, AOT with logistic loss
    return with_rewards(losses, log_ratios(policy, reference), beta)


def paired_quantile_margins(policy: PairLogps, reference: PairLogps) -> Tensor:
    """Quantiles of the policy's margins S_w - S_l minus those of the reference's, [B]."""
    ours = pair_scores(policy, sum_score).margin
    theirs = pair_scores(reference, sum_score).margin.detach()
    return ours.sort().values - theirs.sort().values


def unpaired_quantile_margins(policy: PairLogps, reference: PairLogps) -> Tensor:
    """Quantiles of the chosen log-ratios minus those of the rejected ones, [B]."""
    log_ratio = log_ratios(policy, reference)
    return log_ratio.chosen.sort().values - log_ratio.rejected.sort().values
