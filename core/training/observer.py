"""What the engine tells its caller while it runs, and the one thing it asks: whether to stop.

The engine calls these on its own thread between two steps. An implementation hands the message on and returns at
once (all callbacks together may take 1 % of a step).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from core.domain.trainer_protocol import MetricPoint

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]
Level = Literal["info", "warning", "error"]
StopRequest = Literal["none", "checkpoint", "save", "abandon"]
"""checkpoint: finish the step, write a checkpoint, stop. save: end training here and finish with the policy as it is.
abandon: finish the step and stop without a checkpoint."""


class Stage(StrEnum):
    """The stages of the engine, in their order."""

    SFT = "sft"
    REFERENCE = "reference"
    DPO = "dpo"
    EVALUATION = "evaluation"


@dataclass(frozen=True, kw_only=True)
class CheckpointRef:
    """A complete checkpoint directory. From the moment it is announced the engine never touches it again."""

    directory: Path
    stage: Stage
    step: int
    policy_dir: Path | None = None
    """The policy at that step as a folder that transformers loads, without a tokenizer."""


@dataclass(frozen=True, kw_only=True)
class StageOutput:
    """A finished stage's output directory. The engine goes on reading it; nobody may change or delete it."""

    directory: Path
    stage: Stage
    digest: str
    """Of all that determines the output (`core.training.checkpoints.digests`)."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Greedy answers to one sample prompt, as token ids without the prompt."""

    prompt_index: int
    reference: tuple[int, ...]
    """Of the policy before DPO."""
    policy: tuple[int, ...]


class Observer(Protocol):
    """Implemented by the trainer process; tests use a recording one."""

    def stage_started(self, stage: Stage, total_steps: int, first_step: int) -> None:
        """`first_step` steps of `total_steps` were done by an earlier run."""

    def stage_finished(self, stage: Stage) -> None: ...

    def stage_skipped(self, stage: Stage, reason: Literal["skipped", "reused"]) -> None:
        """skipped: the plan has no such stage. reused: an earlier output was taken over."""

    def progress(self, stage: Stage, step: int, total_steps: int, tokens_per_second: float | None) -> None:
        """Where a stage without metric points stands."""

    def point(self, point: MetricPoint) -> None: ...

    def event(self, level: Level, kind: str, message: str, data: Mapping[str, JsonValue]) -> None:
        """Something people should know."""

    def checkpoint(self, ref: CheckpointRef) -> None: ...

    def stage_output(self, output: StageOutput) -> None: ...

    def samples(self, step: int, samples: Sequence[Sample]) -> None: ...

    def stop_requested(self) -> StopRequest:
        """Asked at every step boundary, so it must be cheap."""


__all__ = [
    "CheckpointRef",
    "JsonValue",
    "Level",
    "MetricPoint",
    "Observer",
    "Sample",
    "Stage",
    "StageOutput",
    "StopRequest",
]
