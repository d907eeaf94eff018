"""Slopes of f-divergences, for f-DPO (arXiv:2309.16240): f'(u) at u = exp(log-ratio).

Written as functions of the log-ratio, so that u itself is never formed. All are 0 at log-ratio 0 and increase.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Divergence = Callable[[Tensor], Tensor]
"""log-ratio [B] -> f'(exp(log-ratio)) [B]."""

_EXPONENT_CAP = 30.0
"""Past e^30 the exponential goes on as its tangent: a response lost by 30 nats keeps a gradient, and a finite one."""


def _tempered_expm1(exponent: Tensor) -> Tensor:
    """Compute exp(x) - 1, continued linearly by its tangent above the cap."""
    # relu, not the difference to the clamped value: two gradients of e^30 would have to cancel there.
    excess = torch.relu(exponent - _EXPONENT_CAP)
    return torch.expm1(exponent.clamp(max=_EXPONENT_CAP)) + math.exp(_EXPONENT_CAP) * excess


def forward_kl_slope(log_ratio: Tensor) -> Tensor:
    """Slope of the forward KL divergence, f(u) = -log u, shifted to be 0 at u = 1: 1 - 1/u."""
    return -_tempered_expm1(-log_ratio)


def jensen_shannon_slope(log_ratio: Tensor) -> Tensor:
    """Slope of the Jensen-Shannon divergence: log(2u / (1 + u))."""
    return math.log(2) + logsigmoid(log_ratio)


def alpha_slope(alpha: float) -> Divergence:
    """Slope of the alpha divergence, (1 - u^-alpha) / alpha, alpha in (0, 1]: 1 is forward KL, near 0 DPO."""

    def slope(log_ratio: Tensor) -> Tensor:
        return -_tempered_expm1(-alpha * log_ratio) / alpha

    return slope
