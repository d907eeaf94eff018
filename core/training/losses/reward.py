"""Loss of reward models: the model of Bradley and Terry for which of two responses is preferred.

Legend: B pairs.
"""

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, *, center_rewards_coefficient: float = 0.0) -> Tensor:
    """Compute -log sigmoid(r_w - r_l) + c (r_w + r_l)^2 (arXiv:2305.18290, eq. 2; arXiv:2312.09244, eq. 2).

    Pairs tell differences of rewards only: the second term, of weight c, chooses their common level, around 0.

    Args:
        chosen: rewards r_w, [B] float32.
        rejected: rewards r_l, [B].

    Returns:
        Losses, [B] with their graph.
    """
    losses = -F.logsigmoid(chosen - rejected)
    if center_rewards_coefficient:
        losses = losses + center_rewards_coefficient * (chosen + rejected).square()
    return losses
