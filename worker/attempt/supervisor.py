"""One attempt at a job: stage its inputs, run its trainer, record its messages, publish, end the job.

Everything here is fenced by the attempt number: once another worker holds the job, this one stops its trainer and
leaves without a trace. Never imports torch.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.confinement import Bounds
from core.control_groups import count_out_of_memory_kills, memory_limit_bytes
from core.disk_space import room_for
from core.domain.errors import DomainError, Fenced, Unavailable
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import FINAL_STATUSES, AttemptOutcome, JobStatus
from core.domain.trainer_protocol import (
    ASSIGNMENT_FILE,
    Done,
    Failed,
    Hello,
    StageChanged,
)
from core.failpoints import reach
from core.services.attempts import lifecycle, nodes, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.lifecycle import Publication, ResumeFrom
from core.services.jobs import jobs
from core.telemetry import tracing
from core.telemetry.scrubbing import scrubber_for
from worker.artifact.publishing import TrainedProduct, publish
from worker.attempt.assignments import make_assignment
from worker.attempt.conversation import TrainerDialogue, require_inside
from worker.attempt.failures import StagingFailed
from worker.attempt.heartbeat import Heartbeat
from worker.attempt.inputs.fetcher import Fetcher, outage_seconds
from worker.attempt.inputs.staging import Inputs, NotOnThisWorker, stage_inputs
from worker.attempt.nodes.causes import NodeFailed, is_consequence, log_of, weigh
from worker.attempt.outcomes import (
    RUNTIME_DETAIL,
    Fail,
    GiveBack,
    Publish,
    StopHere,
    TrainerEnd,
    Verdict,
    judge,
    judge_os_error,
)
from worker.attempt.records.job_log import JobLog
from worker.attempt.records.recorder import Recorder
from worker.attempt.records.tracking import LiveExport
from worker.attempt.records.uploader import Uploader
from worker.attempt.stop_reasons import StopReason
from worker.attempt.stopping import Interrupted, Stopper, StopRequests
from worker.attempt.times import AttemptTimes
from worker.attempt.trainer_process import TrainerProcess
from worker.attempt.workplace import Workplace
from worker.patience import patiently

_MAX_STARTS = 20
"""Trainer processes of one attempt; a second one only from another checkpoint."""

_log = logging.getLogger(__name__)


def run_attempt(place: Workplace, claim: ClaimedJob, work_dir: Path) -> None:
    """Run one claimed attempt to its end. Raises nothing."""
    _log.info("attempt %d of %s starts", claim.attempt, claim.job_id)
    facts: dict[str, str | int] = {
        "job_id": claim.job_id,
        "project_id": claim.project_id,
        "attempt": claim.attempt,
        "worker": claim.worker,
    }
    with tracing.span("attempt", **facts), Heartbeat(claim) as heartbeat:
        attempt = _Attempt(place, claim, work_dir, StopRequests(heartbeat, place.drain, place.beat))
        try:
            attempt.run()
        except Fenced:
            _log.warning("attempt %d of %s was replaced; stopped", claim.attempt, claim.job_id)
        except Interrupted:
            _log.warning("no time left to end attempt %d of %s; its lease will run out", claim.attempt, claim.job_id)
        except Exception:  # noqa: BLE001 - the edge of the worker: the next job must get its turn
            _log.exception("attempt %d of %s: unexpected error; its lease will run out", claim.attempt, claim.job_id)
        finally:
            attempt.close()
            reach("attempt.closed")


class _Attempt:
    def __init__(self, place: Workplace, claim: ClaimedJob, work_dir: Path, stop_requests: StopRequests) -> None:
        self._place = place
        self._claim = claim
        self._work_dir = work_dir
        self._stop_requests = stop_requests
        self._fetcher = Fetcher(claim=claim, work_dir=work_dir, check=stop_requests.check_staging)
        self._uploader = Uploader(claim)
        self._log = JobLog(claim, scrubber_for(claim.backend.settings, work_dir))
        self._export = LiveExport(place.targets, claim.job_id)
        self._spec: dict[str, Any] = claim.spec
        self._hello: Hello | None = None
        self._unusable: str | None = None
        self._num_starts = 0
        self._times = AttemptTimes()

    def close(self) -> None:
        self._uploader.close()
        self._export.close(self._final_status)

    def _final_status(self) -> JobStatus | None:
        try:
            status = jobs.get(self._claim.backend, self._claim.project_id, self._claim.job_id).status
        except DomainError:
            return None
        return status if status in FINAL_STATUSES else None

    def run(self) -> None:
        verdict: Verdict
        try:
            verdict = self._train()
            if isinstance(verdict, Publish):
                with tracing.span("publishing"):
                    self._publish(verdict.done)
                return
        except Interrupted as interruption:
            verdict = StopHere(reason=interruption.reason)
        except NodeFailed as failure:
            verdict = failure.verdict
        except StagingFailed as failure:
            verdict = Fail(code=failure.code, detail=failure.detail)
        except NotOnThisWorker as lack:
            verdict = GiveBack(outcome=AttemptOutcome.CRASHED, detail=str(lack))
        except Unavailable as error:
            verdict = GiveBack(outcome=AttemptOutcome.OUTAGE, detail=error.detail)
        except OSError as error:
            self._log_own_error()
            verdict = judge_os_error(error)
        except Fenced:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the job is handed back
            _log.exception("attempt %d of %s: unexpected error", self._claim.attempt, self._claim.job_id)
            self._log_own_error()
            verdict = GiveBack(outcome=AttemptOutcome.CRASHED, detail="The worker met an unexpected error.")
        self._log_nodes()
        self._end(verdict)

    def _train(self) -> Verdict:
        with tracing.span("staging"):
            with room_for("the checkpoint to go on from"):
                resume = self._fetcher.fetch_resume_point()
            self._enter("staging")
            with room_for("the base model and the rows of the data set"):
                inputs = stage_inputs(self._fetcher)
        for _ in range(_MAX_STARTS):
            self._write_assignment(inputs, resume[1] if resume else None)
            with tracing.span("training"):
                end = self._run_trainer(inputs)
            if not self._is_worth_another_start(end, resume[0] if resume else None) or self._claim.place.has_others:
                break  # all nodes begin anew together, with the next attempt
            resume = self._fetcher.fetch_resume_point()
        if self._claim.place.has_others and is_consequence(end):
            return weigh(judge(end), self._stop_requests.await_others())
        return judge(end)

    def _write_assignment(self, inputs: Inputs, resume_dir: Path | None) -> None:
        assignment = make_assignment(self._place, self._claim, self._spec, inputs, resume_dir)
        (self._work_dir / ASSIGNMENT_FILE).write_text(assignment.dump(), encoding="utf-8")
        reach("assignment.written")

    def _run_trainer(self, inputs: Inputs) -> TrainerEnd:
        num_kills = count_out_of_memory_kills()
        self._log.begin(f"trainer {self._num_starts + 1}" if self._num_starts else "trainer")
        self._num_starts += 1
        is_group = self._place.num_devices > 1 or self._claim.place.has_others
        bounds = Bounds(writes=[self._work_dir], reads=[inputs.base_model_dir], allows_tcp=is_group)
        launch = self._place.launch.for_group() if is_group else self._place.launch
        process = TrainerProcess(launch, self._work_dir, self._log.add, bounds)
        reach("trainer.started")
        grace_seconds = self._claim.backend.settings.stop_grace_seconds
        recorder = Recorder(self._fetcher, self._uploader, self._log, self._export, answer=process.send)
        dialogue = TrainerDialogue(
            process=process,
            recorder=recorder,
            stopper=Stopper(process, grace_seconds),
            stop_requests=self._stop_requests,
            work_dir=self._work_dir,
            grace_seconds=grace_seconds,
            on_listening=self._listen,
        )
        try:
            ended = dialogue.follow()
        finally:
            process.close()
        reach("trainer.ended")
        self._hello = dialogue.hello
        self._times.end_training(dialogue.hello_at, recorder.measured if self._num_starts == 1 else None)
        self._place.precision.note(dialogue.hello.fast_precision if dialogue.hello else None)
        self._unusable = dialogue.unusable_checkpoint
        self._spec = recorder.resolved_spec or self._spec
        return TrainerEnd(
            last=dialogue.last,
            returncode=ended.returncode,
            stop_reason=dialogue.stopper.reason,
            was_ended=dialogue.stopper.has_ended_it(ended.returncode),
            has_spoken_nonsense=ended.has_spoken_nonsense,
            was_out_of_memory=count_out_of_memory_kills() > num_kills,
            peak_bytes=ended.peak_bytes,
            memory_limit_bytes=memory_limit_bytes(),
        )

    def _is_worth_another_start(self, end: TrainerEnd, resume: ResumeFrom | None) -> bool:
        """Whether to start again from an older checkpoint, after the given one could not be used."""
        if not isinstance(end.last, Failed) or self._unusable is None or resume is None:
            return False
        self._fetcher.set_aside(resume, self._unusable)
        return True

    def _publish(self, done: Done) -> None:
        """Upload, then commit artifact and end of the job in one transaction."""
        require_inside(self._work_dir, done.directory)
        self._uploader.wait(lambda: self._stop_requests.current() is not None)
        self._stop_requests.check_overdue()
        self._enter("publishing")
        product = TrainedProduct(done=done, spec=self._spec, hello=self._hello)
        publication = patiently(
            lambda: self._publish_once(product),
            between_tries=self._stop_requests.check_overdue,
            max_seconds=outage_seconds(self._claim),
        )
        is_cancelled = self._stop_requests.current() is StopReason.SAVE
        publication = replace(publication, measured=self._measured())
        finish = lifecycle.finish_cancelled if is_cancelled else lifecycle.finish_succeeded
        self._finally(lambda: finish(self._claim, publication))
        _log.info("attempt %d of %s has published", self._claim.attempt, self._claim.job_id)

    def _measured(self) -> dict[str, Any] | None:
        """Return times and memory, of which those of one worker alone say what other jobs take."""
        return None if self._claim.place.has_others else self._times.measured(self._place.device_class)

    def _publish_once(self, product: TrainedProduct) -> Publication:
        with room_for("the files of the artifact"):
            return publish(self._claim, product, check=self._stop_requests.check_overdue)

    def _end(self, verdict: Verdict) -> None:
        """End the attempt once the pending checkpoints are safe."""
        _log.info("attempt %d of %s ends: %s", self._claim.attempt, self._claim.job_id, verdict)
        deadline = time.monotonic() + outage_seconds(self._claim)
        self._uploader.wait(lambda: self._is_overdue() or time.monotonic() > deadline)
        claim = self._claim
        match verdict:
            case StopHere(reason=StopReason.CANCEL | StopReason.SAVE):
                self._finally(lambda: lifecycle.finish_cancelled(claim))
            case StopHere(reason=StopReason.PAUSE):
                self._finally(lambda: lifecycle.finish_paused(claim))
            case StopHere(reason=StopReason.RUNG):
                self._finally(lambda: lifecycle.finish_at_rung(claim))
            case StopHere(reason=StopReason.RUNTIME):
                code = FailureCode.RUNTIME_EXCEEDED
                self._finally(lambda: lifecycle.finish_failed(claim, code, RUNTIME_DETAIL))
            case StopHere():
                self._finally(lambda: lifecycle.release(claim, AttemptOutcome.DRAINED))
            case Fail() as failure:
                self._finally(lambda: lifecycle.finish_failed(claim, failure.code, failure.detail))
            case GiveBack() as back:
                self._finally(lambda: lifecycle.release(claim, back.outcome, back.detail, back.code))

    def _listen(self, port: int) -> None:
        """Tell the other nodes where they meet this one's trainers."""
        self._patiently(lambda: nodes.listen(self._claim, port))

    def _log_own_error(self) -> None:
        """The job's log has what the worker itself met, unless the database is away."""
        self._log.begin("worker")
        self._log.add_error()
        self._log.write()

    def _log_nodes(self) -> None:
        """The job's log has the last lines of trainers of other nodes that failed, unless the database is away."""
        for other in self._stop_requests.failed_nodes():
            self._log.begin(f"node {other.node} ({other.host})")
            for line in log_of(other):
                self._log.add(line)
            self._log.write()

    def _is_overdue(self) -> bool:
        self._stop_requests.current()
        return self._place.drain.is_overdue

    def _finally(self, work: Callable[[], object]) -> None:
        """Make the attempt's last write, waiting for the database as long as this process may live."""

        def check() -> None:
            if self._is_overdue():
                raise Interrupted(StopReason.DRAIN)

        patiently(work, between_tries=check, max_seconds=math.inf)

    def _enter(self, stage: str) -> None:
        change = StageChanged(stage=stage, status="started")
        self._patiently(lambda: recording.stage_changed(self._claim, change))

    def _patiently(self, work: Callable[[], None]) -> None:
        patiently(work, between_tries=self._stop_requests.check_overdue, max_seconds=outage_seconds(self._claim))
