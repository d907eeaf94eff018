"""`config.json` and `generation_config.json` of a saved policy, readable by other programs and versions.

transformers 5 writes names of its own (`rope_parameters`, `dtype`) and leaves out the ones that transformers 4, mlx-lm,
ctranslate2 and others look for. Those find nothing, take a default, and compute another model without a word: a rotary
base of 10000 instead of 100000 costs two nats a token. So a saved policy keeps all keys of its base model, with the
saved ones on top, and the former names of what only the new ones say.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
_ROPE_OF_ITS_OWN = frozenset({"rope_theta", "partial_rotary_factor"})
"""Entries of `rope_parameters` that were keys of the configuration itself."""
_LONGROPE_KEYS = ("type", "short_factor", "long_factor")
"""All that transformers 4 allows in `rope_scaling` of that type."""
_NEVER_KEPT = frozenset({"auto_map", "quantization_config", "_name_or_path"})
_FORMER_NAMES = {"num_local_experts": "num_experts", "n_positions": "n_ctx"}


@dataclass(frozen=True)
class SourceFiles:
    """Configuration files of the folder that a model was loaded from."""

    config: Mapping[str, Any] = field(default_factory=dict)
    generation_config: bytes | None = None
    """A JSON object; None where there is none, which transformers makes up for."""

    @classmethod
    def read(cls, directory: Path) -> "SourceFiles":
        """Read the files of a folder whose `config.json` is a JSON object."""
        return cls(
            config=json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8")),
            generation_config=_read_object(directory / GENERATION_CONFIG_FILE),
        )


def state_dtype(directory: Path, dtype: torch.dtype) -> None:
    """Write the weights' type into the `config.json` that transformers has just saved with the model's own."""
    path = directory / CONFIG_FILE
    saved = json.loads(path.read_text(encoding="utf-8"))
    for config in (saved, *(value for key, value in saved.items() if key.endswith("_config"))):
        if isinstance(config, dict) and "dtype" in config:
            config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")


def complete_config(directory: Path, source: SourceFiles, config: PretrainedConfig, *, is_tied: bool) -> None:
    """Rewrite the `config.json` that transformers has just saved, so that others read the same model.

    `config` is the saved model's own, `is_tied` whether its head and its embeddings are one tensor.
    """
    path = directory / CONFIG_FILE
    saved = json.loads(path.read_text(encoding="utf-8"))
    _tell_tying(saved, is_tied=is_tied)
    document = _readable_alike(published_config(source.config, saved), saved, type(config))
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def complete_generation_config(directory: Path, source: SourceFiles, end_ids: tuple[int, ...]) -> None:
    """Write a `generation_config.json` that stops at every id in `end_ids` and at the base model's own ones.

    Where nothing is missing, the file is the base model's, byte for byte; without one there, transformers' own.
    """
    path = directory / GENERATION_CONFIG_FILE
    if source.generation_config is not None:
        path.write_bytes(source.generation_config)
    document = json.loads(path.read_bytes()) if path.is_file() else {}
    own = document.get("eos_token_id", source.config.get("eos_token_id"))
    named = [own] if isinstance(own, int) else list(own or ())
    ids = list(dict.fromkeys([*named, *end_ids]))
    if ids and (ids != named or "eos_token_id" not in document):
        document.pop("_from_model_config", None)  # transformers 4 may make it again from config.json
        document["eos_token_id"] = ids[0] if len(ids) == 1 else ids
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _read_object(path: Path) -> bytes | None:
    raw = path.read_bytes() if path.is_file() else b""
    try:
        return raw if isinstance(json.loads(raw), dict) else None
    except ValueError:
        return None


def published_config(base: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base model's keys updated by the saved ones, with former names; nested configurations likewise."""
    document = {key: value for key, value in base.items() if key not in _NEVER_KEPT} | dict(saved)
    for key, value in document.items():
        if key.endswith("_config") and isinstance(value, dict):
            own = base.get(key)
            document[key] = published_config(own if isinstance(own, dict) else {}, value)
    former = _former_keys(document)
    scaling = document.get("rope_scaling", former.get("rope_scaling"))
    document = former | document
    if isinstance(scaling, dict) and "long_factor" not in scaling and "rope_theta" in document:
        document["rope_scaling"] = {"rope_theta": document["rope_theta"]} | scaling  # where ctranslate2 looks
    if "dtype" in saved:
        document["torch_dtype"] = saved["dtype"]
    return document


def _former_keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values under the key names that older programs read."""
    former = {old: document[new] for new, old in _FORMER_NAMES.items() if new in document}
    parameters = document.get("rope_parameters")
    if not isinstance(parameters, dict):
        return former
    by_layer_type = [value for value in parameters.values() if isinstance(value, dict)]
    full = parameters.get("full_attention") if by_layer_type else parameters
    sliding = parameters.get("sliding_attention")
    if isinstance(sliding, dict) and "rope_theta" in sliding:
        former["rope_local_base_freq"] = sliding["rope_theta"]
    return former | (_former_rope(document, full) if isinstance(full, dict) else {})


def _former_rope(document: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    former: dict[str, Any] = {key: parameters[key] for key in sorted(_ROPE_OF_ITS_OWN) if key in parameters}
    if document.get("model_type") == "gpt_neox":
        names = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
        former |= {names[key]: value for key, value in former.items()}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    rest = {key: value for key, value in parameters.items() if key not in _ROPE_OF_ITS_OWN} | {"type": kind}
    if kind == "default":
        former["rope_scaling"] = None
    elif kind == "longrope":
        former["rope_scaling"] = {key: rest[key] for key in _LONGROPE_KEYS if key in rest}
        if "original_max_position_embeddings" in rest:
            former["original_max_position_embeddings"] = rest["original_max_position_embeddings"]
    else:
        former["rope_scaling"] = rest
    return former


def _tell_tying(saved: dict[str, Any], *, is_tied: bool) -> None:
    """Set the flag of tied embeddings to what the weights are, wherever a configuration has it."""
    saved["tie_word_embeddings"] = is_tied
    text = saved.get("text_config")
    if isinstance(text, dict) and "tie_word_embeddings" in text:
        text["tie_word_embeddings"] = is_tied


def _readable_alike(
    document: dict[str, Any], saved: Mapping[str, Any], config_class: type[PretrainedConfig]
) -> dict[str, Any]:
    """Drop the added keys with which this transformers would read another model than it saved."""
    if _reads_as(document, saved, config_class):
        return document
    kept = dict(saved)
    for key, value in document.items():
        if key not in saved and _reads_as(kept | {key: value}, saved, config_class):
            kept[key] = value
    return kept


def _reads_as(document: Mapping[str, Any], saved: Mapping[str, Any], config_class: type[PretrainedConfig]) -> bool:
    decode = config_class._decode_special_floats  # infinity stands as {"__float__": "Infinity"} in the file
    try:
        found = config_class.from_dict(decode(copy.deepcopy(dict(document)))).to_dict()
    except (KeyError, TypeError, ValueError):
        return False
    expected = config_class.from_dict(decode(copy.deepcopy(dict(saved)))).to_dict()
    return _contains(found, expected)


def _contains(found: Any, expected: Any) -> bool:
    """Whether `found` has all that `expected` has; it may have more keys."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return all(key in found and _contains(found[key], value) for key, value in expected.items())
    return bool(found == expected)
