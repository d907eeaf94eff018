"""Recorder of the trainer's messages, in order and in small batches; waits while the database is away.

The order is what makes resuming exact: a checkpoint is offered for upload only after every metric point before it is
written, so that no point between two attempts is missing.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from core.domain.doctor.doctor import Doctor
from core.domain.doctor.findings import Finding, RunFacts
from core.domain.errors import Unavailable
from core.domain.trainer_protocol import (
    CheckpointWritten,
    Failed,
    Measured,
    MetricPoint,
    Progress,
    Resolved,
    SamplesWritten,
    StageChanged,
    StageOutputAnswer,
    StageOutputQuery,
    StageOutputWritten,
    TrainerEvent,
    TrainerMessage,
)
from core.services.attempts import recording
from core.services.attempts.lifecycle import record_resolved_spec
from worker.attempt.inputs.fetcher import Fetcher
from worker.attempt.inputs.stage_waiting import StageWait
from worker.attempt.records.job_log import JobLog
from worker.attempt.records.tracking import LiveExport
from worker.attempt.records.uploader import Uploader
from worker.patience import pause_seconds

BATCH_SECONDS = 0.25
_WAIT_SECONDS = 0.5
"""Between two looks at a stage output that another job builds."""
MAX_BATCH = 500
MAX_WAITING = 20_000
"""Unwritten messages beyond which the recorder takes no more, and in the end the trainer waits."""


class Recorder:
    def __init__(
        self,
        fetcher: Fetcher,
        uploader: Uploader,
        log: JobLog,
        export: LiveExport,
        *,
        answer: Callable[[StageOutputAnswer], None],
    ) -> None:
        self._claim = fetcher.claim
        self._fetcher = fetcher
        self._uploader = uploader
        self._log = log
        self._export = export
        self._answer = answer
        self._waiting: deque[TrainerMessage] = deque()
        self._oldest_at = 0.0
        self._num_failures = 0
        self._next_try_at = 0.0
        self._reused_from: dict[str, str] = {}
        self._stage_wait = StageWait(fetcher)
        self._stage: str | None = None
        self._doctor = _doctor_of(self._claim.spec)
        self._findings: list[Finding] = []
        """Said by the doctor, not written down yet."""
        self.resolved_spec: dict[str, Any] | None = None
        self.measured: dict[str, Any] | None = None
        """What the trainer measured of its whole run."""

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= MAX_WAITING

    @property
    def is_empty(self) -> bool:
        return not self._waiting and self._log.is_empty

    def add(self, message: TrainerMessage) -> None:
        if not self._waiting:
            self._oldest_at = time.monotonic()
        self._waiting.append(message)

    def write_if_due(self) -> None:
        """Write batches every quarter of a second, and at once what the trainer waits for."""
        self._log.write_if_due()
        now = time.monotonic()
        if not self._waiting or now < self._next_try_at:
            return
        is_due = now - self._oldest_at >= BATCH_SECONDS or len(self._waiting) >= MAX_BATCH
        if is_due or isinstance(self._waiting[-1], StageOutputQuery | StageChanged | Resolved):
            self._write_messages()

    def write(self) -> None:
        """Write everything, or as far as the database answers."""
        self._write_messages()
        self._log.write()

    def _write_messages(self) -> None:
        try:
            while self._waiting:
                if not self._write_next():
                    self._next_try_at = time.monotonic() + _WAIT_SECONDS
                    break
            self._num_failures = 0
        except Unavailable:
            self._next_try_at = time.monotonic() + pause_seconds(self._num_failures)
            self._num_failures += 1

    def stop_waiting(self) -> None:
        """Stop waiting for other jobs' builds: the trainer is to stop, or gone."""
        self._stage_wait.give_up()

    def _write_next(self) -> bool:
        """Write one message, or a run of messages of one type. They leave the queue once written.

        False: the next one is a question that cannot be answered yet.
        """
        first = self._waiting[0]
        batch = [first]
        if isinstance(first, MetricPoint | Progress | TrainerEvent):
            batch = self._run_of(type(first))
        if isinstance(first, StageOutputQuery):
            if not self._reply(first):
                return False
        else:
            self._record(first, batch)
        for _ in batch:
            self._waiting.popleft()
        return True

    def _run_of(self, kind: type[TrainerMessage]) -> list[TrainerMessage]:
        batch: list[TrainerMessage] = []
        for message in self._waiting:
            if type(message) is not kind or len(batch) == MAX_BATCH:
                break
            batch.append(message)
        return batch

    def _record(self, first: TrainerMessage, batch: list[TrainerMessage]) -> None:
        match first:
            case MetricPoint():
                points = [message for message in batch if isinstance(message, MetricPoint)]
                recording.record_points(self._claim, points)
                self._export.add(points, self.resolved_spec or self._claim.spec)
                self._examine(points)
            case TrainerEvent():
                events = [message for message in batch if isinstance(message, TrainerEvent)]
                recording.record_events(self._claim, events)
            case Progress():
                newest = batch[-1]
                assert isinstance(newest, Progress)
                recording.record_progress(self._claim, newest)
            case StageChanged():
                self._record_stage(first)
            case SamplesWritten():
                recording.record_samples(self._claim, first.step, first.samples)
            case Resolved():
                record_resolved_spec(self._claim, first.spec)
                self.resolved_spec = first.spec
                self._doctor = self._doctor or _doctor_of(first.spec)
            case Measured():
                self.measured = first.values
            case Failed():
                self._findings += self._doctor.hear_failure(first.code) if self._doctor else []
                self._write_findings()
            case CheckpointWritten():
                self._uploader.offer_checkpoint(first)
            case StageOutputWritten():
                self._uploader.offer_output(first)

    def _examine(self, points: list[MetricPoint]) -> None:
        if self._doctor is not None:
            for point in points:
                self._findings += self._doctor.observe(point)
        self._write_findings()

    def _write_findings(self) -> None:
        recording.record_findings(self._claim, self._findings)
        self._findings = []

    def _record_stage(self, change: StageChanged) -> None:
        reused_from = self._reused_from.get(change.stage) if change.status == "reused" else None
        recording.stage_changed(self._claim, change, reused_from=reused_from)

    def _reply(self, query: StageOutputQuery) -> bool:
        """Answer a query; False while another job builds what is requested."""
        found = self._fetcher.fetch_output(query.stage, query.digest)
        if found is None and self._stage_wait.must_wait(query):
            return False
        if found is not None:
            self._reused_from[query.stage] = found[0]
        job_id, directory = found if found else (None, None)
        self._answer(
            StageOutputAnswer(digest=query.digest, directory=str(directory) if directory else None, job_id=job_id)
        )
        return True


def _doctor_of(spec: dict[str, Any]) -> Doctor | None:
    facts = RunFacts.from_spec(spec)
    return Doctor(facts) if facts else None
