"""The life of one attempt at a job, for workers: claim, heartbeat, begin, end.

Everything but `claim` raises Fenced once another attempt holds the job: the caller stops at once and publishes nothing.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import attempts as attempt_rows
from core.database.repositories import gangs, metric_blocks, metrics, objects, queue
from core.database.repositories import jobs as job_rows
from core.database.repositories.events import EventDraft, append_event
from core.database.repositories.gangs import CalledJob
from core.database.repositories.transitions import Claimant, StartedJob, Transition, move
from core.database.tables.jobs import Job
from core.database.tables.objects import Artifact, Checkpoint
from core.domain.errors import Conflict, Fenced
from core.domain.jobs.failure_codes import TITLES, FailureCode
from core.domain.jobs.gangs import Seat, Waiting
from core.domain.jobs.job_state import AttemptOutcome, Desired, JobStatus, Stage
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.failpoints import reach
from core.services.attempts import requeue
from core.services.attempts.claimed_job import ClaimedJob, NodePlace, fenced
from core.services.attempts.nodes import OtherNode, others_of
from core.services.backend import Backend
from core.services.estimates import measuring
from core.services.ids import new_suffix

AT_RUNG = "It has come to where its sweep compares members."

Arguments = ParamSpec("Arguments")


@dataclass(frozen=True, kw_only=True)
class HeartbeatReply:
    desired: Desired
    saves_on_cancel: bool
    """Whether to publish the current policy when `desired` is cancel."""
    remaining_runtime_seconds: float | None
    """Time left until `max_runtime_seconds`; not positive: end the job as `runtime_exceeded`. None: no limit."""
    others: tuple[OtherNode, ...] = ()
    """The other nodes of the attempt."""


@dataclass(frozen=True, kw_only=True)
class ResumeFrom:
    checkpoint_id: str
    stage: Stage
    step: int
    tree: StoredTree


@dataclass(frozen=True, kw_only=True)
class Publication:
    """An uploaded artifact that is not committed yet."""

    tree: StoredTree
    files: list[StoredFile]
    results: dict[str, Any] | None = None
    """Figures of the policy, for the job."""
    measured: dict[str, Any] | None = None
    """Times and memory of the attempt, where they are those of the whole job."""


def claim(backend: Backend, *, worker: str, host: str, device: str) -> ClaimedJob | None:
    """Claim the next job on one node that is due; None without one."""
    claimed = claim_or_wait(backend, worker=worker, host=host, device=device, seat=None)
    assert not isinstance(claimed, Waiting)
    return claimed


def claim_or_wait(
    backend: Backend, *, worker: str, host: str, device: str, seat: Seat | None
) -> ClaimedJob | Waiting | None:
    """Claim the next job that is due, or wait for the other nodes of one; None without any.

    Args:
        seat: makes the worker take jobs on several nodes too. While it is told to wait it calls again every second,
            and after that at least once, or `leave_gang`.
    """
    lease_seconds = backend.settings.lease_seconds
    claimant = Claimant(
        worker=worker, host=host, device=device, token=new_suffix(), lease_seconds=lease_seconds, seat=seat
    )
    runs = itertools.count()

    def work(session: Session) -> StartedJob | CalledJob | Waiting | None:
        is_repeated = next(runs) > 0
        taken = queue.find_claimed(session, claimant.token) if is_repeated else None
        called = gangs.find_called(session, seat.member) if seat is not None and taken is None else None
        return taken or called or queue.claim_next(session, claimant)

    found = backend.database.write(work)
    if isinstance(found, Waiting) and found.is_new:
        backend.queue.wake()  # for the next of its nodes
    if found is None or isinstance(found, Waiting):
        return found
    reach("claim.committed")
    called = found if isinstance(found, CalledJob) else CalledJob(found, 0, claimant.token)
    return _claimed(backend, called, claimant)


def _claimed(backend: Backend, called: CalledJob, claimant: Claimant) -> ClaimedJob:
    job, seat = called.job, claimant.seat
    return ClaimedJob(
        backend=backend,
        job_id=job.id,
        project_id=job.project_id,
        attempt=job.attempt,
        token=called.token,
        spec=job.spec,
        worker=claimant.worker,
        host=claimant.host,
        device=claimant.device,
        pause_at_share=job.pause_at_share,
        place=NodePlace(node=called.node, num_nodes=job.nodes, member=seat.member if seat is not None else ""),
    )


def leave_gang(backend: Backend, seat: Seat) -> None:
    """Give up the worker's place in a gang that is not complete, if it has one."""
    backend.database.write(lambda session: gangs.leave(session, seat.member))


@fenced
def heartbeat(session: Session, job: Job, claim: ClaimedJob) -> HeartbeatReply:
    """Renew the lease and return what the user requests."""
    limit = job.spec.get("max_runtime_seconds")
    spent = attempt_rows.runtime_seconds(session, job) if limit is not None else 0.0
    reach("heartbeat.in_transaction")
    return HeartbeatReply(
        desired=job.desired,
        saves_on_cancel=job.saves_on_cancel,
        remaining_runtime_seconds=None if limit is None else limit - spent,
        others=others_of(session, claim) if claim.place.has_others else (),
    )


def record_resolved_spec(claim: ClaimedJob, spec: dict[str, Any]) -> None:
    """Store the spec without `auto`, so that later attempts take the same steps."""
    _replace_spec(claim, spec)
    reach("spec.committed")


@fenced
def _replace_spec(session: Session, job: Job, claim: ClaimedJob, spec: dict[str, Any]) -> None:
    job.spec = spec


def begin(claim: ClaimedJob) -> ResumeFrom | None:
    """Choose the newest committed checkpoint, and delete what was recorded after it.

    Called again after `mark_checkpoint_corrupt`, it falls back to an earlier one. None: start from the beginning.
    """
    resume = _begin(claim)
    reach("begin.committed")
    return resume


@fenced
def _begin(session: Session, job: Job, claim: ClaimedJob) -> ResumeFrom | None:
    attempt = attempt_rows.find_attempt(session, job.id, job.attempt)
    checkpoint = next(iter(objects.list_checkpoints(session, job.id)), None)
    chosen = checkpoint.id if checkpoint else None
    if attempt.is_begun and attempt.resume_checkpoint_id == chosen:
        return _resume_from(checkpoint)
    point = metrics.ResumePoint(stage=checkpoint.stage, step=checkpoint.step) if checkpoint else None
    num_rewound = metrics.rewind(session, job, point)
    metric_blocks.rewind(session, job.id, point)
    attempt_rows.forget_stages_beyond(session, job.id, point.stage if point else None)
    attempt.is_begun = True
    attempt.resume_checkpoint_id = chosen
    attempt.resume_stage = point.stage if point else None
    attempt.resume_step = point.step if point else None
    if job.attempt > 1 or point is not None:
        where = f"from the checkpoint of {point.stage.value} step {point.step}" if point else "from the beginning"
        data = {"checkpoint_id": chosen, "num_rewound_points": num_rewound}
        append_event(
            session, job, EventDraft(kind="resumed", message=f"Goes on {where}.", data=data, actor=claim.worker)
        )
    reach("begin.in_transaction")
    return _resume_from(checkpoint)


def _resume_from(checkpoint: Checkpoint | None) -> ResumeFrom | None:
    if checkpoint is None:
        return None
    return ResumeFrom(
        checkpoint_id=checkpoint.id,
        stage=checkpoint.stage,
        step=checkpoint.step,
        tree=checkpoint.tree,
    )


@contextmanager
def _finishing(claim: ClaimedJob, outcome: AttemptOutcome) -> Iterator[None]:
    """Accept a repeated finish: the answer to the first may have been lost."""
    try:
        yield
    except Fenced:
        ended = claim.backend.database.read(
            lambda session: attempt_rows.find_outcome(session, claim.job_id, claim.token)
        )
        if ended is not outcome:
            raise
    reach("finish.committed")


def _finishes(
    outcome: AttemptOutcome,
) -> Callable[
    [Callable[Concatenate[Session, Job, ClaimedJob, Arguments], None]],
    Callable[Concatenate[ClaimedJob, Arguments], None],
]:
    """Make each call the last write of its attempt, which may be repeated."""

    def decorate(
        work: Callable[Concatenate[Session, Job, ClaimedJob, Arguments], None],
    ) -> Callable[Concatenate[ClaimedJob, Arguments], None]:
        write = fenced(work)

        @wraps(work)
        def call(claim: ClaimedJob, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
            with _finishing(claim, outcome):
                write(claim, *args, **kwargs)

        return call

    return decorate


@_finishes(AttemptOutcome.SUCCEEDED)
def finish_succeeded(session: Session, job: Job, claim: ClaimedJob, publication: Publication) -> None:
    """Commit the artifact and the end of the job in one transaction."""
    _insert_artifact(session, job, publication)
    if publication.measured is not None and job.attempt == 1:
        measuring.record(session, job, publication.measured)
    event = EventDraft(kind="succeeded", message="Job succeeded.", actor=claim.worker)
    _end(session, job, Transition(to=JobStatus.SUCCEEDED, event=event, outcome=AttemptOutcome.SUCCEEDED))


@_finishes(AttemptOutcome.FAILED)
def finish_failed(session: Session, job: Job, claim: ClaimedJob, code: FailureCode, detail: str) -> None:
    """End the job as failed; `detail` is for the user: what happened and what to do, no path, no traceback."""
    event = EventDraft(
        kind="failed", level="error", message=f"{TITLES[code]}: {detail}", data={"code": code}, actor=claim.worker
    )
    values = {"error_code": code, "error_detail": detail}
    _end(session, job, Transition(to=JobStatus.FAILED, event=event, outcome=AttemptOutcome.FAILED, values=values))


@_finishes(AttemptOutcome.CANCELLED)
def finish_cancelled(session: Session, job: Job, claim: ClaimedJob, publication: Publication | None = None) -> None:
    """End the job that the user cancelled; with `save`, its policy is published."""
    if job.desired is not Desired.CANCEL:
        raise Conflict("Nobody asked to cancel this job.")
    if publication is not None:
        _insert_artifact(session, job, publication)
    message = "Cancelled; the policy as it was is published." if publication else "Cancelled."
    event = EventDraft(kind="cancelled", message=message, actor=claim.worker)
    _end(session, job, Transition(to=JobStatus.CANCELLED, event=event, outcome=AttemptOutcome.CANCELLED))


@_finishes(AttemptOutcome.PAUSED)
def finish_paused(session: Session, job: Job, claim: ClaimedJob) -> None:
    """End an attempt that stopped at a checkpoint; the user's latest request decides the job's next state."""
    end = requeue.AttemptEnd(AttemptOutcome.PAUSED, claim.worker)
    requeue.give_back(session, claim.backend.settings, job, end)


@_finishes(AttemptOutcome.PAUSED)
def finish_at_rung(session: Session, job: Job, claim: ClaimedJob) -> None:
    """End an attempt that stopped where its sweep compares members; the sweep decides whether the job goes on."""
    job.is_at_rung = job.pause_at_share == claim.pause_at_share
    if job.is_at_rung and job.desired is Desired.RUN:
        job.desired = Desired.PAUSE
    end = requeue.AttemptEnd(AttemptOutcome.PAUSED, claim.worker, message=AT_RUNG)
    requeue.give_back(session, claim.backend.settings, job, end)


def release(
    claim: ClaimedJob, outcome: AttemptOutcome, detail: str | None = None, code: FailureCode | None = None
) -> JobStatus:
    """Return the job to the queue as drained, outage or crashed; return its new state.

    A crash costs: back-off, and the third without a new checkpoint ends the job, with `code` if the cause is known.
    `detail` (for the user) says why.
    """
    with _finishing(claim, outcome):
        _give_back(claim, requeue.AttemptEnd(outcome, claim.worker, detail, code))
    backend = claim.backend
    job = backend.database.read(lambda session: job_rows.find_job(session, claim.project_id, claim.job_id))
    if job is None:
        raise Fenced(f"{claim.job_id} is gone.")
    if job.status is JobStatus.QUEUED:
        backend.queue.wake()
    return job.status


@fenced
def _give_back(session: Session, job: Job, claim: ClaimedJob, end: requeue.AttemptEnd) -> None:
    requeue.give_back(session, claim.backend.settings, job, end)


def _end(session: Session, job: Job, what: Transition) -> None:
    attempt_rows.close_stages(session, job.id)
    metrics.forget_rewound(session, job.id)
    move(session, job, what)
    reach("finish.in_transaction")


def _insert_artifact(session: Session, job: Job, publication: Publication) -> None:
    job.results = publication.results
    job.trained_tokens = metrics.sum_trained_tokens(session, job.id)
    artifact = Artifact(
        job_id=job.id,
        project_id=job.project_id,
        attempt=job.attempt,
        prefix=publication.tree.prefix,
        manifest_sha256=publication.tree.manifest_sha256,
        num_files=len(publication.files),
        num_bytes=sum(file.num_bytes for file in publication.files),
        created_at=database_now(),
    )
    session.add(artifact)
    session.flush()
    session.add_all(artifact.file_row(file) for file in publication.files)
