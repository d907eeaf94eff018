"""Losses of single responses marked good or bad, without pairs.

Legend: B responses; S = sum of the log-probabilities of a response; rho = S - S_ref; sig = sigmoid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from core.training.losses.values import UnpairedLosses


@dataclass(frozen=True, kw_only=True)
class LabelWeights:
    """Weights of good and bad responses, to balance data with more of one than of the other."""

    desirable: float
    """lambda_D"""
    undesirable: float
    """lambda_U"""


def kto_kl(policy_sums: Tensor, reference_sums: Tensor) -> Tensor:
    """KTO's z, a detached scalar: max(0, mean of S - S_ref) over mismatched rows, the policy's divergence.

    Args:
        policy_sums: [N] S of response y_j after prompt x_i with j != i, under the policy.
        reference_sums: [N] the same under the reference.
    """
    return (policy_sums - reference_sums).mean().clamp(min=0).detach()  # arXiv:2402.01306, section 4.1: z_0


def kto_losses(
    policy_sums: Tensor,
    reference_sums: Tensor,
    labels: Tensor,
    kl: Tensor,
    *,
    beta: float,
    label_weights: LabelWeights,
) -> UnpairedLosses:
    """KTO. Good: lambda_D (1 - sig(beta (rho - z))); bad: lambda_U (1 - sig(beta (z - rho))). Rewards are beta rho.

    Args:
        policy_sums: [B] S under the policy, with graph.
        reference_sums: [B] S under the reference.
        labels: [B] bool, True for a desirable response.
        kl: scalar z of the whole optimizer step, from `kto_kl`.
        beta: risk aversion: how fast the value of a reward saturates.
        label_weights: lambda_D and lambda_U.
    """
    log_ratio = policy_sums - reference_sums.detach()
    is_good = labels.to(log_ratio.dtype)
    signs = 2 * is_good - 1
    weights = label_weights.desirable * is_good + label_weights.undesirable * (1 - is_good)
    losses = weights * torch.sigmoid(-beta * signs * (log_ratio - kl.detach()))  # arXiv:2402.01306, eq. 7
    return UnpairedLosses(losses, beta * log_ratio.detach())
