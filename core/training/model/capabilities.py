"""Capabilities of a loaded model for the engine, determined by `core.training.model.probe` when it is loaded."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn
from transformers import PreTrainedModel

_ATTRIBUTE = "preftune_capabilities"
SHARDED_CALL = "preftune_call"
"""Name under which a model that is spread over several devices has what `run_whole` calls."""
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class HeadTransform:
    """How the model's own forward pass treats logits after the LM head's product."""

    scale: float = 1.0
    softcap: float | None = None


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Fast paths that a model supports; the slowest, one sequence at a time, works for every model."""

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
    reward_head: str | None = None
    """Name of the layer that gives a text its reward; None for a language model."""

    @property
    def hides_logits(self) -> bool:
        """Whether the engine runs the layers alone, so that no logits over the vocabulary are kept of a whole text."""
        return self.head is not None or self.reward_head is not None


def capabilities_of(model: nn.Module) -> Capabilities:
    """Return a model's capabilities; raises ValueError for one that `load_causal_lm` has not prepared."""
    found = getattr(model, _ATTRIBUTE, None)
    if not isinstance(found, Capabilities):
        raise ValueError("The model was not prepared: load it with core.training.model.loading.load_causal_lm.")
    return found


def reward_head_of(model: nn.Module) -> tuple[str, nn.Linear] | None:
    """Return name and layer of a prepared reward model's head; None for any other model."""
    found = getattr(model, _ATTRIBUTE, None)
    if not isinstance(found, Capabilities) or found.reward_head is None:
        return None
    head = model.get_submodule(found.reward_head)
    assert isinstance(head, nn.Linear)
    return found.reward_head, head


def remember(model: nn.Module, capabilities: Capabilities) -> None:
    setattr(model, _ATTRIBUTE, capabilities)


def attention_of(model: PreTrainedModel) -> str:
    """Return the name of the attention function that text uses: that of a whole with towers may be another one."""
    return str(model.config.get_text_config()._attn_implementation)


def stock_attention(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Make the model attend as transformers would inside the context; restored afterwards."""
    return attention(model, capabilities_of(model).stock_attention)


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Make the model use the attention function of that name inside the context; restored afterwards."""
    resting = attention_of(model)
    if resting == name:
        yield
        return
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(resting)


def run_whole(model: nn.Module, function: Callable[..., _Result], *args: Any) -> _Result:
    """Call a function that computes with parts of the model, not by its own forward pass; all weights are at hand.

    Of a sharded model all ranks call it together.
    """
    call = getattr(model, SHARDED_CALL, None)
    result: _Result = function(*args) if call is None else call(function, *args)
    return result


def architecture_of(model: nn.Module) -> str:
    """Return the name of the model's class, which sharding changes."""
    return type(model).__name__.removeprefix("FSDP")
