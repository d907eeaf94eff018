"""Activation checkpointing: layers keep only their input and are computed again in the backward pass.

The second computation gives the same bits as the first, so gradients do not change.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from core.training.model.capabilities import attention, attention_of


def checkpoint_activations(model: PreTrainedModel) -> bool:
    """Enable activation checkpointing; return False when the model's layers do not support it.

    transformers asks for training mode. Only the layers themselves are put into it, not what is in them: dropout is
    off in a model that the engine loaded, and adapters have their own switch.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.gradient_checkpointing = True
        layer.training = True
        layer._gradient_checkpointing_func = partial(
            checkpoint, use_reentrant=False, context_fn=partial(_same_attention, model)
        )
    return bool(layers)


def _same_attention(model: PreTrainedModel) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts of the first computation and of the recomputation, which attends as the first did."""
    return nullcontext(), attention(model, attention_of(model))
