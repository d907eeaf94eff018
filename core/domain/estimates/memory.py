"""Peak memory of a training process, from what earlier ones had.

What a step takes grows with the packed tokens of its largest micro-batch. Weights, optimizer states and libraries are
the same in all jobs of a kind. So the peak is a line over one number, fitted to the measured jobs. On a CPU the process
keeps what it once had, and what its libraries keep of each shape is bounded (`worker.child_environment`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from core.domain.estimates.speeds import RECENCY
from core.domain.estimates.work import Work

_REST_WEIGHT = 0.3
"""Weight of what a process has before its first step, as a multiple of the newest job's."""
_LOADING = ("sft:start", "reference:start", "reference:skipped", "dpo:start")
"""Laps that end when a model is loaded, the earliest first."""
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
    rest_bytes: float
    """Bytes at no load: the loaded model and its gradients; the optimizer's states are apart."""
    has_sft: bool

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self | None:
        """Read a measurement; None where the trainer could not measure its memory."""
        memory = values["memory"]
        found = memory["footprints"].get("dpo") or memory["footprints"].get("sft")
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
            rest_bytes=_loaded_bytes(memory["lap_peaks"]) + costs["optimizer_bytes"] / (1 + num_states),
            has_sft=any(item["stage"] == "sft" for item in training),
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
        ending = _mean([job.ending_bytes for job in jobs], weights)
        peaks = [job.training_bytes + (_NUM_STATES[optimizer] - job.num_states) * job.state_bytes for job in jobs]
        loads = [job.load for job in jobs]
        rest = _mean([job.rest_bytes for job in jobs], weights) + _NUM_STATES[optimizer] * jobs[0].state_bytes
        peaks, loads, weights = [*peaks, rest], [*loads, 0.0], [*weights, _REST_WEIGHT]
        mean_load, mean_peak = _mean(loads, weights), _mean(peaks, weights)
        spread = _mean([(load - mean_load) ** 2 for load in loads], weights)
        together = _mean(
            [(load - mean_load) * (peak - mean_peak) for load, peak in zip(loads, peaks, strict=True)], weights
        )
        slope = max(0.0, together / spread) if spread else 0.0
        token_bytes = _mean([job.token_bytes for job in jobs], weights[: len(jobs)])
        load = token_bytes * max((item.micro_batch_tokens for item in training), default=0)
        return round(mean_peak + slope * (load - mean_load) + ending)


def _loaded_bytes(peaks: Mapping[str, int]) -> int:
    return next((peaks[lap] for lap in _LOADING if lap in peaks), 0)


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
