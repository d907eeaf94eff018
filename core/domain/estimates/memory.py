"""Peak memory of a training process, from what earlier ones had.

What a step takes grows with the packed tokens of its largest micro-batch. Weights, optimizer states and libraries are
the same in all jobs of a kind. So the peak is a line over one number: its height comes from the measured jobs, its
slope from the bytes that a token is expected to take, corrected by the jobs as far as they differ in size. On a CPU the
process keeps what it once had, and what its libraries keep of each shape is bounded (`worker.child_environment`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from core.domain.estimates.speeds import RECENCY
from core.domain.estimates.work import Work

_EXPECTED_WEIGHT = 0.1
"""Weight of the expected slope, beside that of a job whose load differs from the others' by all of theirs."""
_LEFT_BY_SFT = 0.3
"""Share of the memory that SFT left which DPO did not use again, so that a job without SFT does without it."""
_START_OF_SFT = "sft:start"
_ENDS_OF_SFT = ("reference:start", "dpo:start")
"""Laps that end when the policy is loaded again, the earliest first."""
_LAST_STAGES = ("reward", "dpo", "sft")
"""Stages whose step is looked at: the last that was measured."""
_NUM_STATES = {"adamw": 2, "rmsprop": 1}
"""Optimizer states of each weight."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Memory of one measured job."""

    training_bytes: int
    """Most that it had until its last step was evaluated."""
    ending_bytes: int
    """What saving the policy and checking it took beyond that."""
    load: float
    """Bytes of the largest micro-batch."""
    token_bytes: float
    """Expected bytes of a packed token in a training step (`core.training.stages.memory_costs`)."""
    state_bytes: float
    """Bytes of one optimizer state of all weights."""
    num_states: int
    has_sft: bool
    left_by_sft_bytes: int
    """Growth of the process from the policy's first loading to its next one; 0 without SFT."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self | None:
        """Read a measurement; None where the trainer could not measure its memory."""
        memory = values["memory"]
        found = next((memory["footprints"][name] for name in _LAST_STAGES if memory["footprints"].get(name)), None)
        if not found or not memory["peak_bytes"]:
            return None
        costs, rows = found["costs"], found["rows"]
        trained = memory["lap_peaks"].get("evaluation:end", memory["peak_bytes"])
        num_states = _NUM_STATES[values["optimizer"]]
        head = costs["scored_token_bytes"] * rows["scored_share"]
        scores = costs["score_bytes"] * min(rows["longest"], costs["most_keys"])
        token_bytes = costs["token_bytes"] + costs["layer_token_bytes"] + scores + head
        training = [item for item in values["times"]["passes"] if item["is_training"]]
        return cls(
            training_bytes=trained,
            ending_bytes=memory["peak_bytes"] - trained,
            load=token_bytes * max((item["micro_batch_tokens"] for item in training), default=0),
            token_bytes=token_bytes,
            state_bytes=costs["optimizer_bytes"] / (1 + num_states),
            num_states=num_states,
            has_sft=any(item["stage"] == "sft" for item in training),
            left_by_sft_bytes=_left_by_sft(memory["lap_peaks"]),
        )


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """Measured jobs of one base model on one class of worker, the newest first."""

    jobs: Sequence[Footprint]

    @classmethod
    def fit(cls, measurements: Sequence[Mapping[str, Any]]) -> Self | None:
        """Take the measurements; None where none has its memory."""
        found = [job for values in measurements if (job := Footprint.of(values)) is not None]
        return cls(jobs=found) if found else None

    def peak_bytes(self, work: Work, optimizer: str) -> int:
        """Predict the most that a job has at once."""
        training = [item for item in work.passes if item.is_training]
        has_sft = any(item.stage == "sft" for item in training)
        jobs = [job for job in self.jobs if job.has_sft == has_sft] or self.jobs
        weights = [RECENCY**age for age in range(len(jobs))]
        loads = [job.load for job in jobs]
        peaks = [job.training_bytes + (_NUM_STATES[optimizer] - job.num_states) * job.state_bytes for job in jobs]
        if not has_sft:
            peaks = [peak - _LEFT_BY_SFT * job.left_by_sft_bytes for peak, job in zip(peaks, jobs, strict=True)]
        mean_load, mean_peak = _mean(loads, weights), _mean(peaks, weights)
        slope = _slope(loads, peaks, weights)
        num_tokens = max((item.micro_batch_tokens for item in training), default=0)
        load = num_tokens * _mean([job.token_bytes for job in jobs], weights)
        ending = _mean([job.ending_bytes for job in jobs], weights)
        return round(mean_peak + slope * (load - mean_load) + ending)


def _slope(loads: Sequence[float], peaks: Sequence[float], weights: Sequence[float]) -> float:
    """Return bytes of the peak for a byte of the load: 1, unless jobs of different loads say otherwise."""
    mean_load, mean_peak = _mean(loads, weights), _mean(peaks, weights)
    spread = sum(weight * (load - mean_load) ** 2 for load, weight in zip(loads, weights, strict=True))
    together = sum(
        weight * (load - mean_load) * (peak - mean_peak)
        for load, peak, weight in zip(loads, peaks, weights, strict=True)
    )
    expected = _EXPECTED_WEIGHT * mean_load**2
    return max(0.0, (together + expected) / (spread + expected)) if expected else 1.0


def _left_by_sft(peaks: Mapping[str, int]) -> int:
    if _START_OF_SFT not in peaks:
        return 0
    return next((peaks[lap] - peaks[_START_OF_SFT] for lap in _ENDS_OF_SFT if lap in peaks), 0)


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
