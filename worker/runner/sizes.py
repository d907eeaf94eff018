"""Memory that a model will take, known before anything of it is fetched."""

from dataclasses import dataclass
from typing import Any

from core.services.backend import Backend
from core.services.chat.model_parts import ModelParts, damaged
from core.services.chat.served_models import ServedModel
from core.storage.trees import TreeDamaged

OVERHEAD_BYTES = 600 * 1024**2
"""What a process with torch and transformers takes without a model."""
_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """What a model's configuration and the headers of its weights tell."""

    num_parameters: int
    context_length: int | None
    """In tokens; None where the configuration does not say."""
    numbers_of_token: int
    """Numbers that the cache keeps for a token."""

    def context(self, most: int) -> int:
        """Return the most tokens of a prompt with its answer."""
        return most if self.context_length is None else min(most, self.context_length)

    def needed_bytes(self, precision: str, num_cached_tokens: int) -> int:
        """Return weights, cache and what the process itself takes, in bytes."""
        size = _BYTES.get(precision, _BYTES["fp32"])
        return (self.num_parameters + num_cached_tokens * self.numbers_of_token) * size + OVERHEAD_BYTES


def measure(backend: Backend, model: ServedModel, parts: ModelParts) -> ModelSize:
    """Read the sizes of a model where it lies. Raises ModelNotServed, StoreUnavailable, OSError."""
    try:
        config = _flat(parts.model.read_config(backend.store))
        folders = [parts.model] if parts.adapter is None else [parts.model, parts.adapter]
        weights = [found for part in folders for found in part.read_weights(backend.store)]
    except TreeDamaged as damage:
        raise damaged(model, damage) from None
    lengths = [config.get(name) for name in ("max_position_embeddings", "n_positions", "max_sequence_length")]
    known = [length for length in lengths if isinstance(length, int) and length > 0]
    return ModelSize(
        num_parameters=sum(found.num_parameters for found in weights),
        context_length=min(known, default=None),
        numbers_of_token=_cached_numbers(config),
    )


def _cached_numbers(config: dict[str, Any]) -> int:
    def first(*names: str) -> int:
        return next((value for name in names if isinstance(value := config.get(name), int) and value > 0), 0)

    heads = first("num_attention_heads", "n_head")
    width = first("hidden_size", "n_embd")
    head_size = first("head_dim") or (width // heads if heads else 0)
    return 2 * first("num_hidden_layers", "n_layer") * (first("num_key_value_heads") or heads) * head_size


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    inner = config.get("text_config")
    return config | inner if isinstance(inner, dict) else config
