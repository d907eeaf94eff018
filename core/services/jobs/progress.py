"""Progress of a job and remaining time, estimated from the known work of each stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.domain.jobs.job_state import Stage

_FORWARD = 1.0
_TRAIN = 3.0
"""Forward and backward, in forward passes."""
_FIXED_SHARE = 0.02
"""Share of the training work, for staging and for publishing."""


@dataclass(frozen=True, kw_only=True)
class StageState:
    """State of a stage: `fraction` done; `elapsed_seconds` since it started, or None before that."""

    fraction: float
    elapsed_seconds: float | None
    is_left_out: bool = False
    """Skipped, or taken over from another job: costs nothing."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    fraction: float
    eta_seconds: float | None


def stage_weights(spec: Mapping[str, Any]) -> dict[Stage, float]:
    """Return the work of each stage in forward passes over one response of every pair."""
    sft = spec["sft"]
    dpo_epochs = float(spec["dpo"]["epochs"])
    work = {
        Stage.SFT: 0.0 if sft == "skip" else _TRAIN * float(sft["epochs"]),
        Stage.REFERENCE: 2 * _FORWARD,
        Stage.DPO: 2 * _TRAIN * dpo_epochs,
        Stage.EVALUATION: 2 * _FORWARD * float(spec.get("validation_fraction") or 0.05),
    }
    fixed = _FIXED_SHARE * sum(work.values())
    return {stage: work.get(stage, fixed) for stage in Stage}


def estimate(spec: Mapping[str, Any], current: Stage | None, states: Mapping[Stage, StageState]) -> Estimate:
    """Return the done fraction of the whole job, and the time left at the pace of the current stage."""
    weights = {
        stage: 0.0 if stage in states and states[stage].is_left_out else weight
        for stage, weight in stage_weights(spec).items()
    }
    done = sum(weights[stage] * state.fraction for stage, state in states.items())
    total = sum(weights.values())
    fraction = min(1.0, done / total) if total else 0.0
    return Estimate(fraction=fraction, eta_seconds=_eta(weights, current, states, total - done))


def _eta(
    weights: Mapping[Stage, float], current: Stage | None, states: Mapping[Stage, StageState], left: float
) -> float | None:
    state = states.get(current) if current else None
    if current is None or state is None or not state.elapsed_seconds:
        return None
    done_here = weights[current] * state.fraction
    return left * state.elapsed_seconds / done_here if done_here > 0 else None
