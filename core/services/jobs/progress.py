"""Progress of a job and remaining time, estimated from the known work of each stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import method_of

_FORWARD = 1.0
_TRAIN = 3.0
"""Forward and backward, in forward passes."""
_RESPONSES = {Stage.SFT: 1, Stage.DPO: 2, Stage.REWARD: 2}
"""Responses of a row that a stage computes."""
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
    """Return the work of each stage of the job's method, in forward passes over one response of every row."""
    method = method_of(spec)
    num_responses = _RESPONSES[method.last]
    work = {stage: _TRAIN * _RESPONSES[stage] * _epochs(spec[stage.value]) for stage in method.trained}
    work[Stage.EVALUATION] = num_responses * _FORWARD * float(spec.get("validation_fraction") or 0.05)
    if method.has(Stage.REFERENCE):
        work[Stage.REFERENCE] = num_responses * _FORWARD
    fixed = _FIXED_SHARE * sum(work.values())
    return {stage: work.get(stage, fixed) for stage in method.stages}


def _epochs(settings: Any) -> float:
    return 0.0 if settings == "skip" else float(settings["epochs"])


def estimate(spec: Mapping[str, Any], current: Stage | None, states: Mapping[Stage, StageState]) -> Estimate:
    """Return the done fraction of the whole job, and the time left at the pace of the current stage."""
    weights = {
        stage: 0.0 if stage in states and states[stage].is_left_out else weight
        for stage, weight in stage_weights(spec).items()
    }
    done = sum(weights[stage] * state.fraction for stage, state in states.items() if stage in weights)
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
