"""Settings, data and code in which jobs differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.services.comparisons.gathering import ComparedRun

_LEFT_OUT = frozenset({"name", "metadata", "priority", "tracking", "reuse", "sample_prompts"})
"""Settings that change no number."""
_DATA = frozenset({"dataset_id", "sft/dataset_id", "validation_dataset_id"})
MISSING = None


@dataclass(frozen=True, kw_only=True)
class Differing:
    """One setting, dataset or library in which the jobs differ."""

    name: str
    values: dict[str, Any]
    """Job -> its value; null where it has none."""


def differing_settings(runs: Sequence[ComparedRun]) -> list[Differing]:
    flat = {run.job_id: dict(_flatten(run.spec)) for run in runs}
    return [item for item in _differing(flat) if item.name not in _DATA]


def differing_data(runs: Sequence[ComparedRun]) -> list[Differing]:
    return _differing({run.job_id: run.datasets for run in runs})


def differing_code(runs: Sequence[ComparedRun]) -> list[Differing]:
    """Compare the jobs whose versions are known."""
    return _differing({run.job_id: run.versions for run in runs if run.versions})


def _differing(values: Mapping[str, Mapping[str, Any]]) -> list[Differing]:
    names = dict.fromkeys(name for found in values.values() for name in found)
    items = [Differing(name=name, values={job: found.get(name, MISSING) for job, found in values.items()})
             for name in names]  # fmt: skip
    return [item for item in items if any(value != next(iter(item.values.values())) for value in item.values.values())]


def _flatten(spec: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in spec.items():
        if not prefix and name in _LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value
