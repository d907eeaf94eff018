"""Adapters as files in peft's format: `adapter_config.json` and `adapter_model.safetensors`."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from core.training.model.adapters import (
    LoraConfig,
    adapter_state,
    adapters,
    inject_as_saved,
    load_adapter_state,
)
from core.training.model.targets import UnsupportedAdapter

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FILE_MODE = 0o644
_PLAIN_VALUES: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "init_lora_weights": (True, None),
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None, []),
    "exclude_modules": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, []),
    "lora_bias": (False, None),
}
"""Options of peft's LoraConfig that change what the tensors mean, with the values computed here."""


def save_adapter(
    model: PreTrainedModel, config: LoraConfig, directory: Path | str, *, base_model_name: str | None = None
) -> None:
    """Write the model's adapter so that `peft.PeftModel.from_pretrained(base_model, directory)` loads it."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    layers = dict(adapters(model))
    document = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model_name,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(layers),
        "fan_in_fan_out": any(layer.is_transposed for layer in layers.values()),
        "bias": "none",
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
    (directory / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    state = {_PREFIX + name: tensor.contiguous().cpu() for name, tensor in adapter_state(model).items()}
    save_file(state, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (directory / name).chmod(_FILE_MODE)


def load_adapter(model: PreTrainedModel, directory: Path | str) -> LoraConfig:
    """Put a saved adapter into a plain model, ready to train; peft's own folders load too.

    Raises:
        UnsupportedAdapter: not a plain LoRA adapter (DoRA, PiSSA, rank patterns …), or not for this model.
    """
    directory = Path(directory)
    try:
        document = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        state = load_file(directory / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise UnsupportedAdapter("The adapter's files cannot be read.") from error
    for option, accepted in _PLAIN_VALUES.items():
        if option in document and document[option] not in accepted:
            raise UnsupportedAdapter(f"The adapter sets {option} to {document[option]!r}, which is not supported.")
    names = [name.removeprefix(_PREFIX) for name in state]
    layers = {name.rsplit(".lora_", 1)[0] for name in names}
    config = LoraConfig(
        rank=int(document["r"]),
        alpha=float(document["lora_alpha"]),
        dropout=float(document.get("lora_dropout") or 0.0),
        target_modules=sorted(layers),
    )
    inject_as_saved(model, config, sorted(layers))
    load_adapter_state(model, dict(zip(names, state.values(), strict=True)))
    return config
