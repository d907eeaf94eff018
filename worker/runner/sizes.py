"""Memory that a model will take, before it is loaded."""

import json

from core.base_models.safetensors_header import read_weights
from worker.runner.files import ModelFiles

OVERHEAD_BYTES = 600 * 1024**2
"""What a process with torch and transformers takes without a model."""
_BYTES = {"fp32": 4, "bf16": 2}


def context_of(files: ModelFiles, most: int) -> int:
    """Return the most tokens of a prompt with its answer."""
    config = _config(files)
    lengths = [config.get(name) for name in ("max_position_embeddings", "n_positions", "max_sequence_length")]
    return min([most, *(length for length in lengths if isinstance(length, int) and length > 0)])


def needed_bytes(files: ModelFiles, precision: str, num_cached_tokens: int) -> int:
    """Return weights, cache and what the process itself takes, in bytes."""
    size = _BYTES.get(precision, _BYTES["fp32"])
    folders = [files.model_dir] if files.adapter_dir is None else [files.model_dir, files.adapter_dir]
    weights = [read_weights(path) for folder in folders for path in folder.glob("*.safetensors")]
    num_parameters = sum(found.num_parameters for found in weights)
    return num_parameters * size + num_cached_tokens * _cached_numbers(_config(files)) * size + OVERHEAD_BYTES


def _cached_numbers(config: dict[str, object]) -> int:
    """Return how many numbers the cache keeps for a token."""

    def first(*names: str) -> int:
        return next((value for name in names if isinstance(value := config.get(name), int) and value > 0), 0)

    heads = first("num_attention_heads", "n_head")
    width = first("hidden_size", "n_embd")
    head_size = first("head_dim") or (width // heads if heads else 0)
    return 2 * first("num_hidden_layers", "n_layer") * (first("num_key_value_heads") or heads) * head_size


def _config(files: ModelFiles) -> dict[str, object]:
    config: dict[str, object] = json.loads((files.model_dir / "config.json").read_text(encoding="utf-8"))
    inner = config.get("text_config")
    return config | inner if isinstance(inner, dict) else config
