"""Rule for jobs whose attempt ended without finishing them, the same for workers and the sweeper.

Who died decides. A trainer that dies under a worker that lives is a crash of the job's: three without a new checkpoint
end it. A worker that vanishes (a spot machine, a kill from outside) says little about the job, which is queued again;
`MAX_LOSSES` bound that. Where workers vanish at one and the same step on several machines, the job is what kills them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.database.columns import database_after
from core.database.repositories import attempts as attempt_rows
from core.database.repositories import metrics
from core.database.repositories.events import EventDraft
from core.database.repositories.transitions import Transition, move
from core.database.tables.jobs import Attempt, Job
from core.domain.jobs.failure_codes import TITLES, FailureCode
from core.domain.jobs.job_state import (
    MAX_CRASHES,
    MAX_LOSSES,
    MAX_LOSSES_AT_ONE_STEP,
    MAX_OUTAGES,
    MIN_POISONED_HOSTS,
    AttemptOutcome,
    Desired,
    JobStatus,
)
from core.failpoints import reach
from core.settings import Settings

_MESSAGES = {
    AttemptOutcome.PAUSED: "The attempt stopped at a checkpoint.",
    AttemptOutcome.DRAINED: "The worker was stopped and handed the job back.",
    AttemptOutcome.OUTAGE: "Database or object store stayed away; the worker handed the job back.",
    AttemptOutcome.CRASHED: "The trainer died.",
    AttemptOutcome.LOST: "The worker stopped responding.",
}


@dataclass(frozen=True)
class AttemptEnd:
    """End of an attempt: how it ended, who reports it, and the message to the user."""

    outcome: AttemptOutcome
    actor: str
    detail: str | None = None
    code: FailureCode | None = None
    """The cause of a crash, where it is known: a job that is given up then fails with it."""
    message: str | None = None
    """What to say of the end, where the outcome does not say it."""

    @property
    def what_happened(self) -> str:
        return self.message or _MESSAGES[self.outcome]


def give_back(session: Session, settings: Settings, job: Job, what: AttemptEnd) -> None:
    """Queue the job again, or end or pause it if the user requested that or if it died too often."""
    ended = attempt_rows.find_attempt(session, job.id, job.attempt)
    ended.ended_stage, ended.ended_step = job.stage, job.step
    if job.desired is Desired.CANCEL:
        _stop(session, job, what, JobStatus.CANCELLED)
    elif job.desired is Desired.PAUSE:
        _stop(session, job, what, JobStatus.PAUSED)
    elif what.outcome is AttemptOutcome.OUTAGE:
        _wait_out(session, settings, job, what)
    elif what.outcome is AttemptOutcome.LOST:
        _replace_worker(session, settings, job, what)
    elif what.outcome is not AttemptOutcome.CRASHED:
        _queue(session, job, what, 0.0)
    elif job.crash_count + 1 >= MAX_CRASHES:
        _fail(session, job, what)
    else:
        _queue(session, job, what, backoff_seconds(settings, job.crash_count), is_crash=True)


def backoff_seconds(settings: Settings, num_crashes: int) -> float:
    """Return the delay: 30 s, doubled with each crash, at the default lease; it scales with the lease."""
    return settings.lease_seconds / 2 * float(2**num_crashes)


def _wait_out(session: Session, settings: Settings, job: Job, what: AttemptEnd) -> None:
    """Queue the job again without counting a crash, but only for a bounded time."""
    has_progress = attempt_rows.find_attempt(session, job.id, job.attempt).num_checkpoints > 0
    num_outages = 0 if has_progress else 1 + attempt_rows.count_newest(session, job.id, AttemptOutcome.OUTAGE)
    if num_outages >= MAX_OUTAGES:
        detail = f"{num_outages} attempts in a row met an outage. Retry the job once the store answers again."
        _end_failed(session, job, what, FailureCode.STORE_UNAVAILABLE, detail)
    else:
        _queue(session, job, what, backoff_seconds(settings, min(max(0, num_outages - 1), MAX_CRASHES)))


def _replace_worker(session: Session, settings: Settings, job: Job, what: AttemptEnd) -> None:
    """Queue the job again, at once the first time, then with growing delays and a bound."""
    mine = attempt_rows.find_attempt(session, job.id, job.attempt)
    if mine.num_checkpoints > 0:
        _queue(session, job, what, 0.0)
        return
    lost = [mine, *attempt_rows.list_lost(session, job.id)]
    if _is_poisoned(lost):
        where = f"{mine.ended_stage.value} step {mine.ended_step}" if mine.ended_stage else ""
        hosts = ", ".join(sorted({attempt.host for attempt in lost[:MAX_LOSSES_AT_ONE_STEP]}))
        detail = f"{MAX_LOSSES_AT_ONE_STEP} workers in a row vanished at {where}, on different machines ({hosts})."
        _end_failed(session, job, what, FailureCode.CRASH_LOOP, detail)
    elif len(lost) >= MAX_LOSSES:
        detail = f"{len(lost)} workers vanished before a new checkpoint. Retry the job, with checkpoints more often."
        _end_failed(session, job, what, FailureCode.CRASH_LOOP, detail)
    else:
        pause = backoff_seconds(settings, min(len(lost) - 2, MAX_CRASHES)) if len(lost) > 1 else 0.0
        _queue(session, job, what, pause)


def _is_poisoned(lost: Sequence[Attempt]) -> bool:
    """Whether the newest losses occurred at one step of training on several machines."""
    newest = lost[:MAX_LOSSES_AT_ONE_STEP]
    places = {(attempt.ended_stage, attempt.ended_step) for attempt in newest}
    is_one_place = len(newest) == MAX_LOSSES_AT_ONE_STEP and len(places) == 1 and bool(newest[0].ended_step)
    return is_one_place and len({attempt.host for attempt in newest}) >= MIN_POISONED_HOSTS


def _stop(session: Session, job: Job, what: AttemptEnd, to: JobStatus) -> None:
    message = "Cancelled." if to is JobStatus.CANCELLED else "Paused."
    if what.outcome is not AttemptOutcome.PAUSED or what.message:
        message = f"{what.what_happened} {message}"
    event = EventDraft(kind=to.value, message=message, actor=what.actor)
    if to is JobStatus.CANCELLED:
        metrics.forget_rewound(session, job.id)
        attempt_rows.close_stages(session, job.id)
    move(session, job, Transition(to=to, event=event, outcome=what.outcome))


def _queue(session: Session, job: Job, what: AttemptEnd, pause_seconds: float, *, is_crash: bool = False) -> None:
    message = " ".join(part for part in (what.what_happened, what.detail, "The job is queued again.") if part)
    event = EventDraft(
        kind="requeued",
        level="warning" if is_crash else "info",
        message=message,
        data={"outcome": what.outcome, "pause_seconds": pause_seconds},
        actor=what.actor,
    )
    values = {
        "next_run_at": database_after(pause_seconds),
        "wake_sent_at": None,
        "crash_count": job.crash_count + is_crash,
    }
    move(session, job, Transition(to=JobStatus.QUEUED, event=event, outcome=what.outcome, values=values))
    reach("requeue.in_transaction")


def _fail(session: Session, job: Job, what: AttemptEnd) -> None:
    detail = f"{job.crash_count + 1} attempts ended without a new checkpoint. {what.what_happened}"
    if what.detail:
        detail = f"{detail} {what.detail}"
    job.crash_count += 1
    _end_failed(session, job, what, what.code or FailureCode.CRASH_LOOP, detail)


def _end_failed(session: Session, job: Job, what: AttemptEnd, code: FailureCode, detail: str) -> None:
    event = EventDraft(
        kind="failed", level="error", message=f"{TITLES[code]}: {detail}", data={"code": code}, actor=what.actor
    )
    metrics.forget_rewound(session, job.id)
    attempt_rows.close_stages(session, job.id)
    values = {"error_code": code, "error_detail": detail}
    move(session, job, Transition(to=JobStatus.FAILED, event=event, outcome=what.outcome, values=values))
