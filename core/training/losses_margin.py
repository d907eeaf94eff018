"""Losses of the log-ratio margin: how much more the policy has come to prefer the chosen response than the reference does.

Legend: rho = log-ratio of a response, D = rho_w - rho_l (w chosen, l rejected), [B] each; ls = log sigmoid.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from core.training.logps_types import PairLogps, PairLosses
from core.training.scores import PairScores, Score, log_ratios, sum_score


def with_rewards(losses: Tensor, log_ratio: PairScores, beta: float) -> PairLosses:
    """The losses with implicit rewards beta * log-ratio, detached (arXiv:2305.18290, section 4: r̂ = beta * rho)."""
    return PairLosses(losses, beta * log_ratio.chosen.detach(), beta * log_ratio.rejected.detach())


def dpo_loss(policy: PairLogps, reference: PairLogps, *, beta: float, score: Score = sum_score) -> PairLosses:
    """-ls(beta D)."""
    log_ratio = log_ratios(policy, reference, score)
    losses = -logsigmoid(beta * log_ratio.margin)  # arXiv:2305.18290, eq. 7
    return with_rewards(losses, log_ratio, beta)
