"""Digests of all that determines a stage's output, so that equal runs can share it, and of a whole run.

Directories, threads and intervals are left out: they change nothing in the output. The kind of device and the
versions of the libraries are in: the last bits depend on them. A field that came later than the first release is in
where its value is not the default (`core.domain.jobs.released_fields`): old digests stay what they were.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import get_method
from core.domain.jobs.released_fields import stored_fields
from core.domain.variants.checks import get_variant
from core.training.data.encoded import EncodedData
from core.training.data.packing import PACKING_VERSION
from core.training.plan import TrainingPlan

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ENGINE_VERSION = 2
"""Raised whenever the same plan would give other numbers."""


def versions(plan: TrainingPlan) -> dict[str, str]:
    """Return the versions that, besides the plan, decide the last bits of a run."""
    shared = "" if plan.layout == "sharded" else f", {plan.layout}"
    return {
        "engine": str(ENGINE_VERSION),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": plan.device.split(":")[0] + (f" x{plan.num_devices}{shared}" if plan.num_devices > 1 else ""),
    }


def run_versions(plan: TrainingPlan) -> dict[str, str]:
    """Return the versions that decide the last bits of a run which goes on from a checkpoint."""
    return {**versions(plan), "packing": str(PACKING_VERSION)}


def sft_digest(plan: TrainingPlan) -> str | None:
    """Return the digest of the SFT policy, or None when no later stage starts from one."""
    if plan.sft is None or get_method(plan.method).last is Stage.SFT:
        return None
    return _digest({"stage": "sft", **_start(plan), "sft": _values(plan.sft), **_sft_rows(plan)})


def reference_digest(plan: TrainingPlan, micro_batch_tokens: int | None = None) -> str | None:
    """Return the digest of the reference log-probabilities, or None when the variant needs none.

    Batches are part of it: log-probabilities that were computed in DPO's own micro-batches make the rewards of the
    first step exactly 0.
    """
    if plan.dpo is None or not get_variant(plan.variant).needs_reference:
        return None
    return _digest(
        {
            "stage": "reference",
            **_start(plan),
            "policy": sft_digest(plan),
            "train": _data(plan.train_data),
            "validation": _data(plan.validation_data),
            "batch_size": plan.dpo.batch_size,
            "micro_batch_tokens": micro_batch_tokens or plan.micro_batch_tokens,
        }
    )


def run_digest(plan: TrainingPlan) -> str:
    """Return the digest of all that decides a run's numbers; a checkpoint belongs to plans with the same digest."""
    values = _values(plan)
    for name in ("base_model_dir", "work_dir", "resume_from", "reuse", "device", "num_devices", "num_threads"):
        del values[name]
    del values["checkpoint_every_steps"]
    for name in ("artifact_dtype", "pause_at_share", "layout"):
        values.pop(name, None)
    for name in ("train_data", "validation_data", "sft_data"):
        values[name] = _data(values[name])
    return _digest({"engine": str(ENGINE_VERSION), **values})


def _start(plan: TrainingPlan) -> dict[str, object]:
    return {
        "base_model": plan.base_model_digest,
        "lora": None if plan.lora is None else _values(plan.lora),
        "precision": plan.precision,
        "seed": plan.seed,
        "micro_batch_tokens": plan.micro_batch_tokens,
        "versions": versions(plan),
        **({"group_by_prompt": True} if plan.group_by_prompt else {}),
    }


def _values(plan: "DataclassInstance") -> dict[str, Any]:
    """Return the dataclass as plain values, nested ones included; later fields at their default are left out."""
    fields = ((item.name, _plain(getattr(plan, item.name)), _default(item)) for item in dataclasses.fields(plan))
    return stored_fields(type(plan).__name__, fields)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _values(value)
    return value


def _default(item: "dataclasses.Field[Any]") -> object:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _sft_rows(plan: TrainingPlan) -> dict[str, object]:
    if plan.sft_data is None:
        side = "chosen" if get_variant(plan.variant).data == "preference" else "good"
        return {"rows": _data(plan.train_data), "side": side}
    return {"rows": _data(plan.sft_data), "side": "only"}


def _data(directory: str | None) -> str | None:
    return None if directory is None else EncodedData.open(Path(directory)).digest


def _digest(values: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()
