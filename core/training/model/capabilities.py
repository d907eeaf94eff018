"""What a loaded model can do for the engine, found out by `core.training.model.probe` when it is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

_ATTRIBUTE = "preftune_capabilities"


@dataclass(frozen=True, kw_only=True)
class HeadTransform:
    """How the model's own forward pass treats logits after the LM head's product."""

    scale: float = 1.0
    softcap: float | None = None


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Every model has a way; the slowest is one sequence at a time through its own forward pass."""

    is_packable: bool
    """Several sequences in one row give the same hidden states as each alone."""
    longest_packable: int | None
    """Tokens of a sequence up to which that holds; None: no limit (rotary scaling that depends on the length)."""
    head: HeadTransform | None
    """None: logits come from the model's own forward pass."""
    stock_attention: str
    """transformers' attention for everything but packed rows: generation, one sequence at a time."""


def capabilities_of(model: nn.Module) -> Capabilities:
    """Raises ValueError for a model that `load_causal_lm` has not prepared."""
    found = getattr(model, _ATTRIBUTE, None)
    if not isinstance(found, Capabilities):
        raise ValueError("The model was not prepared: load it with core.training.model.loading.load_causal_lm.")
    return found


def remember(model: nn.Module, capabilities: Capabilities) -> None:
    setattr(model, _ATTRIBUTE, capabilities)


@contextmanager
def stock_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model attends as transformers would; outside, as it was set."""
    resting = model.config._attn_implementation
    model.set_attn_implementation(capabilities_of(model).stock_attention)
    try:
        yield
    finally:
        model.set_attn_implementation(resting)
