"""For tests of the engine's loop: a base model and pairs on the disk, short plans, an observer that records."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packed_rows import VOCABULARY, Row, make_model, write_rows
from safetensors.torch import load_file

from core.domain.training import encoded_format
from core.domain.training.metric_names import TIMING
from core.training.failures import TrainingStopped
from core.training.model.loading import save_policy
from core.training.observer import CheckpointRef, MetricPoint, Sample, Stage, StageOutput, StopRequest
from core.training.pipeline import TrainingResult, run
from core.training.plan import DpoPlan, SftPlan, TrainingPlan


def random_pairs(num_rows: int, seed: int) -> list[Row]:
    """Prompts of 1 to 9 tokens, responses of 1 to 11. The chosen ones keep to the lower half of the vocabulary."""
    rng = np.random.default_rng(seed)

    def tokens(longest: int, low: int, high: int) -> list[int]:
        return [int(token) for token in rng.integers(low, high, rng.integers(1, longest + 1))]

    half = VOCABULARY // 2
    return [(tokens(9, 2, VOCABULARY), tokens(11, 2, half), tokens(11, half, VOCABULARY)) for _ in range(num_rows)]


def write_data(directory: Path, rows: Sequence[Row], kind: str = "preference", good: Collection[int] = ()) -> str:
    """Encoded rows with a digest of their own; returns the directory as plans name it."""
    write_rows(directory, rows, kind=kind, good=good)
    path = directory / encoded_format.META_FILE
    meta = json.loads(path.read_text())
    meta["digest"] = hashlib.sha256(repr((rows, kind, *good)).encode()).hexdigest()
    path.write_text(json.dumps(meta))
    return str(directory)


@dataclass(frozen=True)
class World:
    """What all runs of a test module start from."""

    directory: Path
    base_model_dir: str
    train_data: str
    validation_data: str

    @classmethod
    def make(cls, directory: Path, *, num_train: int = 11, num_validation: int = 5) -> "World":
        torch.set_num_threads(1)
        base = directory / "base"
        save_policy(make_model("llama"), base)
        return cls(
            directory,
            str(base),
            write_data(directory / "train", random_pairs(num_train, 1)),
            write_data(directory / "validation", random_pairs(num_validation, 2)),
        )

    def plan(self, work_dir: str, **changes: Any) -> TrainingPlan:
        """SFT of one epoch and DPO of two, four pairs a step, several micro-batches in each."""
        plan = TrainingPlan(
            base_model_dir=self.base_model_dir,
            base_model_digest="tiny",
            train_data=self.train_data,
            validation_data=self.validation_data,
            sft=SftPlan(epochs=1, learning_rate=1e-3, batch_size=4),
            dpo=DpoPlan(epochs=2, learning_rate=1e-3, batch_size=4, warmup_steps=2, schedule="linear"),
            precision="fp32",
            evaluate_every_steps=2,
            checkpoint_every_steps=100,
            micro_batch_tokens=40,
            sample_prompts=((5, 6, 7),),
            max_new_tokens=4,
            work_dir=str(self.directory / work_dir),
        )
        return dataclasses.replace(plan, **changes)


Decide = Callable[["RecordingObserver"], StopRequest]


@dataclass
class RecordingObserver:
    """Keeps everything; `decide` is asked at every poll."""

    decide: Decide | None = None
    calls: list[tuple[str, Any]] = field(default_factory=list)
    points: list[MetricPoint] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    checkpoints: list[CheckpointRef] = field(default_factory=list)
    outputs: dict[Stage, StageOutput] = field(default_factory=dict)
    answers: list[tuple[int, Sequence[Sample]]] = field(default_factory=list)
    stage: Stage | None = None
    num_polls: int = 0

    def stage_started(self, stage: Stage, total_steps: int, first_step: int) -> None:
        self.stage = stage
        self.calls.append(("started", (stage, total_steps, first_step)))

    def stage_finished(self, stage: Stage) -> None:
        self.calls.append(("finished", stage))

    def stage_skipped(self, stage: Stage, reason: str) -> None:
        self.calls.append((reason, stage))

    def progress(self, stage: Stage, step: int, total_steps: int, tokens_per_second: float | None) -> None:
        self.calls.append(("progress", (stage, step, total_steps)))

    def point(self, point: MetricPoint) -> None:
        self.points.append(point)

    def event(self, level: str, kind: str, message: str, data: Mapping[str, Any]) -> None:
        json.dumps(data, allow_nan=False)
        self.events.append((level, kind))

    def checkpoint(self, ref: CheckpointRef) -> None:
        self.checkpoints.append(ref)

    def stage_output(self, output: StageOutput) -> None:
        self.outputs[output.stage] = output

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        self.answers.append((step, samples))

    def stop_requested(self) -> StopRequest:
        self.num_polls += 1
        return "none" if self.decide is None else self.decide(self)

    def curve(self, stage: str, split: str, name: str) -> list[float | None]:
        return [point.values[name] for point in self.points if (point.stage, point.split) == (stage, split)]


def stop_at_poll(number: int, request: StopRequest = "checkpoint") -> Decide:
    """Asks to stop from the given poll on, counted from 1."""
    return lambda observer: request if observer.num_polls >= number else "none"


def run_with_stops(
    plan: TrainingPlan, polls_per_leg: int, max_legs: int = 60
) -> tuple[TrainingResult, RecordingObserver]:
    """Stopped at every `polls_per_leg`-th poll and resumed in a fresh work directory, until it is through.

    A leg must be long enough for one evaluation: one that is broken off starts anew.

    Returns:
        The result, and an observer with the points of all legs.
    """
    points: list[MetricPoint] = []
    for leg in range(max_legs):
        observer = RecordingObserver(stop_at_poll(polls_per_leg))
        leg_plan = dataclasses.replace(plan, work_dir=f"{plan.work_dir}-{leg}")
        try:
            result = run(leg_plan, observer)
        except TrainingStopped:
            points += observer.points
            plan = dataclasses.replace(plan, resume_from=str(observer.checkpoints[-1].directory))
            continue
        observer.points = points + observer.points
        return result, observer
    raise AssertionError(f"not through after {max_legs} legs")


def untimed(points: Sequence[MetricPoint]) -> list[tuple[str, str, int, float, dict[str, float | None]]]:
    """Points without what differs between identical runs."""
    return [
        (p.stage, p.split, p.step, p.epoch, {name: value for name, value in p.values.items() if name not in TIMING})
        for p in points
    ]


def tree_bytes(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def weights(result: TrainingResult) -> dict[str, torch.Tensor]:
    return load_file(result.policy_dir / "model.safetensors")
