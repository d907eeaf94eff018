"""Rotary frequencies that depend on the longest sequence (dynamic NTK), limited to the sequence at hand.

transformers keeps the frequencies of the longest sequence seen and goes back only for one below the trained length, so
a row's value would depend on what ran before it. Here every forward pass starts from the original frequencies.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

_DYNAMIC = "dynamic"
LENGTH_DEPENDENT = frozenset({_DYNAMIC, "longrope"})
"""Rope types whose frequencies depend on the length of the sequence."""


def forget_earlier_lengths(model: PreTrainedModel) -> None:
    """Make every call of a dynamic rotary module start as the first one did; other modules are left alone."""
    for module in model.modules():
        if list(_dynamic_prefixes(module)):
            module.register_forward_pre_hook(_restore)


def rope_settings(config: Any) -> list[dict[str, Any]]:
    """Return the rotary settings of a text configuration: one, or one for each type of layer."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    nested = [settings for settings in found.values() if isinstance(settings, dict)]
    return [*nested, found]


def trained_length(config: Any) -> int | None:
    """Tokens up to which length-dependent frequencies are those of training; None if they never change."""
    lengths = []
    for settings in rope_settings(config):
        if settings.get("rope_type") in LENGTH_DEPENDENT:
            named = settings.get("original_max_position_embeddings")
            limit = int(config.max_position_embeddings)
            lengths.append(min(limit, int(named)) if named else limit)
    return min(lengths, default=None)


def _dynamic_prefixes(module: nn.Module) -> Iterator[str]:
    """Prefixes of the buffers of a rotary module that change with the length: "" or one for each type of layer."""
    kinds = getattr(module, "rope_type", None)
    if not hasattr(module, "original_max_seq_len"):
        return
    if isinstance(kinds, str) and _DYNAMIC in kinds:
        yield ""
    if isinstance(kinds, dict):
        yield from (f"{layer}_" for layer, kind in kinds.items() if _DYNAMIC in kind)


def _restore(module: Any, args: Any) -> None:
    for prefix in _dynamic_prefixes(module):
        device = getattr(module, f"{prefix}inv_freq").device
        original = getattr(module, f"{prefix}original_inv_freq").to(device)
        module.register_buffer(f"{prefix}inv_freq", original, persistent=False)
        setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
