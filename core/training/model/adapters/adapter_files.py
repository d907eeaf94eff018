"""Adapters as files in peft's format: `adapter_config.json` and `adapter_model.safetensors`."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from core.training.kernels.lora_experts import LoraExperts, is_expert_stack
from core.training.kernels.lora_linear import LoraLinear
from core.training.model.adapters.adapters import (
    LoraConfig,
    adapter_state,
    adapters,
    inject_as_saved,
    load_adapter_state,
    wrappers,
)
from core.training.model.adapters.targets import UnsupportedAdapter, find_expert_targets
from core.training.model.capabilities import reward_head_of

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
_FILE_MODE = 0o644
_EXPERT_LAYERS = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
"""Names of experts' layers before transformers 5, in whose place peft puts the parameters that hold them now."""
_PLAIN_VALUES: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "init_lora_weights": (True, None),
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None, []),
    "exclude_modules": (None, []),
    "trainable_token_indices": (None, []),
    "lora_bias": (False, None),
}
"""Options of peft's LoraConfig that change what the tensors mean, with the values computed here."""


def save_adapter(
    model: PreTrainedModel,
    config: LoraConfig,
    directory: Path | str,
    *,
    base_model_name: str | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the model's adapter so that `peft.PeftModel.from_pretrained(base_model, directory)` loads it.

    Args:
        state: its tensors, as `adapter_state` returns them, where they are at hand.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    modules, parameters = _peft_targets(model)
    head = reward_head_of(model)
    document: dict[str, object] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if head is None else "SEQ_CLS",
        "base_model_name_or_path": base_model_name,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0 if parameters else config.dropout,  # peft refuses any beside target_parameters
        "target_modules": modules,
        "fan_in_fan_out": any(isinstance(layer, LoraLinear) and layer.is_transposed for _, layer in adapters(model)),
        "bias": "none",
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None if head is None else [head[0]],
        "inference_mode": True,
    }
    if parameters:
        document["target_parameters"] = parameters
    (directory / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    tensors = adapter_state(model) if state is None else state
    values = {PREFIX + name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    save_file(values, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (directory / name).chmod(_FILE_MODE)


def load_adapter(model: PreTrainedModel, directory: Path | str, dtype: torch.dtype | None = None) -> LoraConfig:
    """Put a saved adapter into a plain model, ready to train; peft's own folders load too.

    Args:
        dtype: of the adapter in the model; None: as the weights that it is for.

    Raises:
        UnsupportedAdapter: not a plain LoRA adapter (DoRA, PiSSA, rank patterns …), or not for this model.
    """
    directory = Path(directory)
    try:
        document = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        state = load_file(directory / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise UnsupportedAdapter("The adapter's files cannot be read.") from error
    head = reward_head_of(model)
    whole = (None, []) if head is None else ([head[0]],)
    for option, accepted in {**_PLAIN_VALUES, "modules_to_save": whole}.items():
        if option in document and document[option] not in accepted:
            raise UnsupportedAdapter(f"The adapter sets {option} to {document[option]!r}, which is not supported.")
    names = [name.removeprefix(PREFIX) for name in state]
    parameters = [str(name) for name in document.get("target_parameters") or ()]
    experts = [name for name in parameters if name.rsplit(".", 1)[-1] != "weight"]
    stacks = find_expert_targets(model, experts)
    modules = {name.rsplit(".lora_", 1)[0] for name in names if ".lora_" in name}
    config = LoraConfig(
        rank=int(document["r"]),
        alpha=float(document["lora_alpha"]),
        dropout=float(document.get("lora_dropout") or 0.0),
        target_modules=sorted(name for name in modules if name.replace(".base_layer", "") not in stacks),
        target_parameters=tuple(experts),
    )
    inject_as_saved(model, config, dtype)
    load_adapter_state(model, dict(zip(names, state.values(), strict=True)))
    return config


def _peft_targets(model: PreTrainedModel) -> tuple[list[str], list[str]]:
    """Return `target_modules` and `target_parameters` of an adapted model, for peft.

    In a mixture of experts peft takes a layer named like an expert's, such as a shared expert's or a dense layer's
    `gate_proj`, for the experts themselves, and loses it without a word. Such a layer is named by its weight.
    """
    has_stacks = any(is_expert_stack(module) for module in model.modules())
    modules, parameters = [], []
    for name, wrapper in wrappers(model).items():
        if isinstance(wrapper, LoraExperts):
            parameters += [f"{name}.{leaf}" for leaf in wrapper.updates]
        elif has_stacks and name.rsplit(".", 1)[-1] in _EXPERT_LAYERS:
            parameters.append(f"{name}.weight")
        else:
            modules.append(name)
    return modules, parameters
