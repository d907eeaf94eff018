"""Interface through which the engine reports to its caller, and asks whether to stop.

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
    REWARD = "reward"
    EVALUATION = "evaluation"


TrainedStage = Literal[Stage.SFT, Stage.DPO, Stage.REWARD]
"""A stage that takes optimizer steps."""


@dataclass(frozen=True, kw_only=True)
class CheckpointRef:
    """A complete checkpoint directory; the engine never touches it again once it is announced."""

    directory: Path
    stage: Stage
    step: int
    policy_dir: Path | None = None
    """The policy at that step as a folder that transformers loads, without a tokenizer."""


@dataclass(frozen=True, kw_only=True)
class StageOutput:
    """A finished stage's output directory. The engine keeps reading it; nobody may change or delete it."""

    directory: Path
    stage: Stage
    digest: str
    """Digest of all that determines the output (`core.training.checkpoints.digests`)."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Greedy answers to one sample prompt, as token ids without the prompt."""

    prompt_index: int
    reference: tuple[int, ...]
    """Answer of the policy before DPO."""
    policy: tuple[int, ...]


class Observer(Protocol):
    """Receiver of the engine's reports; implemented by the trainer process and by a recorder in tests."""

    def stage_started(self, stage: Stage, total_steps: int, first_step: int) -> None:
        """Report the start of a stage, of which an earlier run did `first_step` of `total_steps` steps."""

    def stage_finished(self, stage: Stage) -> None: ...

    def stage_skipped(self, stage: Stage, reason: Literal["skipped", "reused"]) -> None:
        """Report a stage not run. skipped: the plan has none. reused: an earlier output was taken over."""

    def progress(self, stage: Stage, step: int, total_steps: int, tokens_per_second: float | None) -> None:
        """Report the progress of a stage that has no metric points."""

    def point(self, point: MetricPoint) -> None: ...

    def event(self, level: Level, kind: str, message: str, data: Mapping[str, JsonValue]) -> None:
        """Report an event that users should know."""

    def checkpoint(self, ref: CheckpointRef) -> None: ...

    def stage_output(self, output: StageOutput) -> None: ...

    def samples(self, step: int, samples: Sequence[Sample]) -> None: ...

    def stop_requested(self) -> StopRequest:
        """Return the requested stop, if any. Asked at every step boundary, so it must be cheap."""


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
    "TrainedStage",
]
