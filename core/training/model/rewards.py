"""Rewards of the responses of a packed batch under a reward model.

Legend: R responses (of pairs the B chosen ones, then the B rejected ones), H hidden size.
"""

from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.training.data.packing import PackedBatch
from core.training.model.capabilities import capabilities_of, reward_head_of
from core.training.model.hidden_states import end_states

SHARDED_REWARDS = "preftune_batch_rewards"
"""Name of `compute_rewards` as a method of a model that is spread over several devices."""


def batch_rewards(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Compute the reward of each response with its prompt, [R] float32; with a graph if gradients are enabled.

    Args:
        model: loaded by `core.training.model.reward_model.load_reward_model`.
    """
    compute = getattr(model, SHARDED_REWARDS, None) or partial(compute_rewards, model)
    found: Tensor = compute(batch)
    return found


def compute_rewards(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Compute rewards with all weights at hand; the head's product is taken in float32."""
    found = reward_head_of(model)
    assert found is not None
    head = found[1]
    bias = None if head.bias is None else head.bias.float()
    states = end_states(model, capabilities_of(model), batch)
    return torch.nn.functional.linear(states.float(), head.weight.float(), bias)[:, 0]
