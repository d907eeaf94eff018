"""What makes two jobs alike enough for one's measurement to foretell the other."""

from collections.abc import Collection, Mapping
from typing import Any

from core.domain.jobs.methods import method_of


def settings_key(spec: Mapping[str, Any], precision: str) -> str:
    """Return the settings that speed depends on most, beside base model, worker and rows."""
    return f"{method_of(spec).name} {precision} {'lora' if spec.get('lora') else 'full'}"


def last_optimizer(spec: Mapping[str, Any]) -> str:
    """Return the optimizer of the stage whose policy is published."""
    return str(spec[method_of(spec).last.value]["optimizer"])


def stage_settings(spec: Mapping[str, Any], stage: str, left_open: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings that decide a stage's output: where two jobs' are equal, one can take over the other's.

    The trainer decides by digests of the rows as encoded (`core.training.checkpoints.digests`): equal settings are
    what can be compared before that.

    Args:
        left_open: settings of SFT that the worker has yet to resolve.
    """
    found = {name: spec.get(name) for name in _START}
    if isinstance(found["sft"], dict):
        found["sft"] = {name: value for name, value in found["sft"].items() if name not in left_open}
    if stage == "reference":
        found["batch_size"] = spec["dpo"]["batch_size"]
    return found


_START = (
    "base_model", "dataset_id", "sft", "lora", "max_length", "seed", "chat_template_kwargs", "exclude_lines",
    "swap_lines", "validation_fraction", "validation_dataset_id",
)  # fmt: skip
