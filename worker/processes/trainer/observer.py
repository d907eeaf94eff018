"""Observer that forwards the engine's reports to the supervisor as messages."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from core.domain.trainer_protocol import (
    CheckpointWritten,
    MetricPoint,
    Progress,
    SamplesWritten,
    StageChanged,
    StageOutputWritten,
    TrainerEvent,
)
from core.training.observer import CheckpointRef, JsonValue, Level, Sample, Stage, StageOutput, StopRequest
from worker.processes.trainer.supervisor_link import SupervisorLink
from worker.processes.trainer.timeline import Timeline


class LinkObserver:
    def __init__(
        self,
        link: SupervisorLink,
        prompts: Sequence[str],
        decode: Callable[[Sequence[int]], str],
        *,
        complete_policy: Callable[[Path], None],
        shares_outputs: bool,
        timeline: Timeline,
    ) -> None:
        """Take the link; `complete_policy` adds to saved weights what else a folder needs."""
        self._link = link
        self._timeline = timeline
        self._complete_policy = complete_policy
        self._shares_outputs = shares_outputs
        self._prompts = prompts
        self._decode = decode
        self._total_steps: dict[Stage, int] = {}

    def stage_started(self, stage: Stage, total_steps: int, first_step: int) -> None:
        self._timeline.lap(f"{stage.value}:start")
        self._total_steps[stage] = total_steps
        self._link.send(StageChanged(stage=stage.value, status="started", step=first_step, total_steps=total_steps))

    def stage_finished(self, stage: Stage) -> None:
        self._timeline.lap(f"{stage.value}:end")
        total = self._total_steps.get(stage, 0)
        self._link.send(StageChanged(stage=stage.value, status="finished", step=total, total_steps=total))

    def stage_skipped(self, stage: Stage, reason: Literal["skipped", "reused"]) -> None:
        self._timeline.lap(f"{stage.value}:{reason}")
        self._link.send(StageChanged(stage=stage.value, status=reason))

    def progress(self, stage: Stage, step: int, total_steps: int, tokens_per_second: float | None) -> None:
        self._timeline.lap(f"{stage.value}:part")
        self._link.send(
            Progress(stage=stage.value, step=step, total_steps=total_steps, tokens_per_second=tokens_per_second)
        )

    def point(self, point: MetricPoint) -> None:
        self._timeline.lap(f"{point.stage}:{'step' if point.split == 'train' else 'validation'}")
        self._link.send(replace(point, values=finite(point.values)))

    def event(self, level: Level, kind: str, message: str, data: Mapping[str, JsonValue]) -> None:
        self._link.send(TrainerEvent(level=level, kind=kind, message=message, data=dict(data)))

    def checkpoint(self, ref: CheckpointRef) -> None:
        policy_directory = None
        if ref.policy_dir is not None:
            self._complete_policy(ref.policy_dir)
            policy_directory = str(ref.policy_dir)
        self._timeline.lap(f"{ref.stage.value}:checkpoint")
        self._link.send(
            CheckpointWritten(
                directory=str(ref.directory),
                stage=ref.stage.value,
                step=ref.step,
                policy_directory=policy_directory,
            )
        )

    def stage_output(self, output: StageOutput) -> None:
        if not self._shares_outputs:
            return
        self._link.send(
            StageOutputWritten(stage=output.stage.value, digest=output.digest, directory=str(output.directory))
        )

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        self._timeline.lap("evaluation:answers")
        decoded = [
            {
                "prompt": self._prompts[sample.prompt_index],
                "reference": self._decode(sample.reference),
                "policy": self._decode(sample.policy),
            }
            for sample in samples
        ]
        self._link.send(SamplesWritten(step=step, samples=decoded))

    def stop_requested(self) -> StopRequest:
        return self._link.stop_mode or "none"


def finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Replace NaN and infinities by null: messages are strict JSON."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
