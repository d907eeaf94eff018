"""What a loaded model can do for the engine, found out by `core.training.model.probe` when it is loaded."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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
    has_cache: bool = True
    """Generation may keep keys and values; else every token computes the whole sequence again."""


def capabilities_of(model: nn.Module) -> Capabilities:
    """Raises ValueError for a model that `load_causal_lm` has not prepared."""
    found = getattr(model, _ATTRIBUTE, None)
    if not isinstance(found, Capabilities):
        raise ValueError("The model was not prepared: load it with core.training.model.loading.load_causal_lm.")
    return found


def remember(model: nn.Module, capabilities: Capabilities) -> None:
    setattr(model, _ATTRIBUTE, capabilities)


def stock_attention(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Inside, the model attends as transformers would; outside, as it was set."""
    return attention(model, capabilities_of(model).stock_attention)


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Inside, the model attends by the function of that name; outside, as it was set."""
    resting = model.config._attn_implementation
    if resting == name:
        yield
        return
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(resting)
