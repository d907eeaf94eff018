"""Presets for `auto`: defaults from published recipes, by model size, full or LoRA, and amount of data.

Sources: SFT full 2e-5 (Zephyr handbook), 1e-3 at 360M (SmolLM2); LoRA about 10x of full (LoRA Without Regret);
DPO 5e-7 RMSprop (DPO authors' repository), 1e-6 AdamW (SmolLM2, OLMo-3), LoRA 5e-6..1e-5 (handbook QLoRA);
reward models 1e-5 full (9e-6 in arXiv:2203.02155 and OpenRLHF), LoRA 1e-4 (TRL's RewardConfig), one epoch, since more
overfit (arXiv:2203.02155, App. C.2);
variants with their own (columns of the catalogue): ORPO and CPO 8e-6, LoRA 8e-5 (arXiv:2403.07691; TRL's example
scripts of both), SimPO 1e-6 (its authors search 3e-7 to 1e-6 and warn of 1e-5); KTO's and IPO's are DPO's;
one epoch each; batch 64 pairs (arXiv:2305.18290, App. B), smaller where that would leave fewer than 20 steps.
"""

from typing import Any

SMALL_MODEL_PARAMETERS = 400_000_000
MEDIUM_MODEL_PARAMETERS = 2_000_000_000
MIN_STEPS = 20


def sft(num_parameters: int, num_rows: int, *, is_lora: bool) -> dict[str, Any]:
    """Return values for every `auto` of the SFT stage but `warmup_steps`."""
    full = 1e-4 if num_parameters <= SMALL_MODEL_PARAMETERS else 2e-5
    return {
        "epochs": 1,
        "learning_rate": 2e-4 if is_lora else full,
        "batch_size": _batch_size(num_rows),
        "schedule": "cosine",
        "optimizer": "adamw",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
    }


def dpo(
    num_parameters: int, num_rows: int, *, is_lora: bool, own_rates: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return values for every `auto` of the DPO stage but `warmup_steps`.

    Args:
        own_rates: the variant's learning rates for full fine-tuning and LoRA, if it has its own.
    """
    if num_parameters <= SMALL_MODEL_PARAMETERS:
        full = 5e-6
    else:
        full = 1e-6 if num_parameters <= MEDIUM_MODEL_PARAMETERS else 5e-7
    rates = own_rates or (full, full * 10)
    return {
        "epochs": 1,
        "learning_rate": rates[is_lora],
        "batch_size": _batch_size(num_rows),
        "schedule": "linear",
        "optimizer": "adamw",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
    }


def reward(num_parameters: int, num_rows: int, *, is_lora: bool) -> dict[str, Any]:
    """Return values for every `auto` of a reward model's training but `warmup_steps`."""
    full = 2e-5 if num_parameters <= SMALL_MODEL_PARAMETERS else 1e-5
    return {
        "epochs": 1,
        "learning_rate": 1e-4 if is_lora else full,
        "batch_size": _batch_size(num_rows),
        "schedule": "linear",
        "optimizer": "adamw",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
    }


def fill(stage: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """Return the preset's values for the keys of `stage` that are `auto`."""
    return {key: value for key, value in preset.items() if stage[key] == "auto"}


def micro_batch_tokens(device: str) -> int:
    return 16384 if device.startswith("cuda") else 2048


def _batch_size(num_rows: int) -> int:
    """Return 64, halved until an epoch has at least `MIN_STEPS` steps; never under 4."""
    size = 64
    while size > 4 and num_rows / size < MIN_STEPS:
        size //= 2
    return size
