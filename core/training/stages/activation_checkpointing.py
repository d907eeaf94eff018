"""Activation checkpointing: layers keep only their input and are computed again in the backward pass.

The second computation gives the same bits as the first, so gradients do not change.
"""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def checkpoint_activations(model: nn.Module) -> bool:
    """Switches it on; False when the model's layers do not offer it.

    transformers asks for training mode. Only the layers themselves are put into it, not what is in them: dropout is
    off in a model that the engine loaded, and adapters have their own switch.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.gradient_checkpointing = True
        layer.training = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    return bool(layers)
