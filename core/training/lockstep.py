"""The observer of one rank: the leader calls the real observer; the others learn from the leader whether to stop."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from core.training.observer import (
    CheckpointRef,
    JsonValue,
    Level,
    MetricPoint,
    Observer,
    Sample,
    Stage,
    StageOutput,
    StopRequest,
)
from core.training.ranks import Ranks

_REQUESTS: tuple[StopRequest, ...] = get_args(StopRequest)


class LockstepObserver:
    """Gives all ranks the same answer at the same boundary, whenever the request to stop reached the leader."""

    def __init__(
        self,
        ranks: Ranks,
        observer: Observer | None,
        tell_checkpoint: Callable[[CheckpointRef], None] | None = None,
    ) -> None:
        """Wrap `observer`, which is the leader's and None in the other ranks.

        Args:
            tell_checkpoint: is told what another node than the leader's has written of a checkpoint.
        """
        self._ranks = ranks
        self._observer = observer
        self._tell_checkpoint = tell_checkpoint

    def stop_requested(self) -> StopRequest:
        wish = "none" if self._observer is None else self._observer.stop_requested()
        return _REQUESTS[self._ranks.from_leader(_REQUESTS.index(wish))]

    def stage_started(self, stage: Stage, total_steps: int, first_step: int) -> None:
        if self._observer is not None:
            self._observer.stage_started(stage, total_steps, first_step)

    def stage_finished(self, stage: Stage) -> None:
        if self._observer is not None:
            self._observer.stage_finished(stage)

    def stage_skipped(self, stage: Stage, reason: Literal["skipped", "reused"]) -> None:
        if self._observer is not None:
            self._observer.stage_skipped(stage, reason)

    def progress(self, stage: Stage, step: int, total_steps: int, tokens_per_second: float | None) -> None:
        if self._observer is not None:
            self._observer.progress(stage, step, total_steps, tokens_per_second)

    def point(self, point: MetricPoint) -> None:
        if self._observer is not None:
            self._observer.point(point)

    def event(self, level: Level, kind: str, message: str, data: Mapping[str, JsonValue]) -> None:
        if self._observer is not None:
            self._observer.event(level, kind, message, data)

    def checkpoint(self, ref: CheckpointRef) -> None:
        if self._observer is not None:
            self._observer.checkpoint(ref)
        elif self._tell_checkpoint is not None:
            self._tell_checkpoint(ref)

    def stage_output(self, output: StageOutput) -> None:
        if self._observer is not None:
            self._observer.stage_output(output)

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        if self._observer is not None:
            self._observer.samples(step, samples)
