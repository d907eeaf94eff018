"""Rounds as users handle them: create, get, list, steer, extend, delete; `progress` does their stages."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import rounds as rows
from core.database.tables.datasets import Dataset
from core.database.tables.rounds import Rounds
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import Conflict, DomainError, FieldError, InvalidRequest, NotFound
from core.domain.jobs.job_spec import JobRequest
from core.domain.judging.pairing import PairingKind
from core.domain.judging.round_checks import check_request
from core.domain.judging.rounds import (
    RoundsRequest,
    RoundsStatus,
    RoundStage,
    plan_round,
    plan_start,
    round_job,
)
from core.failpoints import reach
from core.services.access import audit
from core.services.backend import Backend
from core.services.chat import served_models
from core.services.cursors import decode_cursor, encode_cursor
from core.services.datasets import datasets
from core.services.datasets.versions.versions import at_version
from core.services.ids import new_id, new_suffix
from core.services.jobs import submission
from core.services.judgements import judgements
from core.services.rounds import held_out, renewal
from core.services.rounds.run import Run, add_steps
from core.services.rounds.view import RoundsView, view_rounds
from core.services.transactions import reads, writes
from core.services.views import Page

MAX_OPEN = 20
"""Rounds of a project that have not ended."""


class RoundsNotFound(NotFound):
    code = "rounds-not-found"
    title = "There are no such rounds"


class TooManyRounds(Conflict):
    code = "too-many-rounds"
    title = "The project has as many open rounds as it may"


class RoundsEnded(Conflict):
    code = "rounds-ended"
    title = "The rounds have ended"


class RoundsNotDeletable(Conflict):
    code = "rounds-not-deletable"
    title = "The rounds cannot be deleted"


def create(backend: Backend, project_id: str, request: RoundsRequest, *, rounds_id: str | None = None) -> RoundsView:
    """Record rounds; `progress` starts their stages. Raises InvalidRequest naming the fault, TooManyRounds.

    With a `rounds_id` chosen before (see `idempotency`), a repeated call answers the rounds that are there.
    """
    chosen = rounds_id or new_id("rounds")
    check_request(request)
    pinned = _pinned(backend, project_id, request)
    _require_model(backend, project_id, request.job.base_model)
    _require_judges(backend, project_id, request)
    held_out.check(backend, project_id, pinned)
    stages = [(0, stage) for stage in plan_start(request)]
    stages += [(1, stage) for stage in plan_round(request, has_earlier=False)]
    suffixes = [new_suffix() for _ in stages]
    drafts = {pointer: submission.prepare(backend, job) for pointer, job in _checkable_jobs(pinned, chosen).items()}

    def work(session: Session) -> RoundsView:
        known = rows.find_rounds(session, project_id, chosen)
        if known is not None:
            return view_rounds(session, [known])[0]
        _require_room(session, project_id)
        for pointer, draft in drafts.items():
            _check_job(session, project_id, pointer, draft)
        row = Rounds(
            id=chosen,
            project_id=project_id,
            name=request.name,
            user_metadata=request.metadata,
            requested=pinned.model_dump(mode="json", exclude_unset=True),
            status=RoundsStatus.RUNNING,
            num_rounds=request.num_rounds,
            created_at=database_now(),
        )
        session.add(row)
        session.flush()
        add_steps(session, row, stages, suffixes, 0)
        audit.note(session, project_id, "rounds.create", chosen, num_rounds=request.num_rounds)
        reach("rounds.in_transaction")
        return view_rounds(session, [row])[0]

    return backend.database.write(work)


def _require_room(session: Session, project_id: str) -> None:
    if rows.count_open(session, project_id) >= MAX_OPEN:
        raise TooManyRounds(f"{MAX_OPEN} rounds have not ended; cancel one, or wait.")


def _pinned(backend: Backend, project_id: str, request: RoundsRequest) -> RoundsRequest:
    """Return the request with the versions of its datasets named. Raises InvalidRequest naming an unusable one."""
    pin = partial(_pin, backend, project_id)
    changes: dict[str, Any] = {"job": pin(request.job, "/job")}
    _check_file(request, datasets.find_ready(backend, project_id, changes["job"].dataset_id))
    if request.initial is not None:
        changes["initial"] = pin(request.initial, "/initial")
    if request.evaluation.dataset_id is not None:
        found = _find_dataset(backend, project_id, request.evaluation.dataset_id, "/evaluation/dataset_id")
        changes["evaluation"] = request.evaluation.model_copy(update={"dataset_id": found.version_name})
    return request.model_copy(update=changes)


def _pin(backend: Backend, project_id: str, job: JobRequest, pointer: str) -> JobRequest:
    """Return a job with the versions of its datasets named."""

    def named(name: str, place: str) -> str:
        return _find_dataset(backend, project_id, name, f"{pointer}/{place}").version_name

    changes: dict[str, Any] = {"dataset_id": named(at_version(job.dataset_id, job.dataset_version), "dataset_id")}
    if job.validation_dataset_id is not None:
        changes["validation_dataset_id"] = named(job.validation_dataset_id, "validation_dataset_id")
    if job.sft != "skip" and job.sft.dataset_id is not None:
        sft = {"dataset_id": named(job.sft.dataset_id, "sft/dataset_id")}
        changes["sft"] = job.sft.model_copy(update=sft)
    return job.model_copy(update=changes)


def _find_dataset(backend: Backend, project_id: str, name: str, pointer: str) -> Dataset:
    try:
        return datasets.find_ready(backend, project_id, name)
    except (datasets.DatasetNotFound, datasets.DatasetNotReady) as error:
        raise _fault(pointer, error.detail) from error


def _check_file(request: RoundsRequest, file: Dataset) -> None:
    """Check that the rounds can take what they want of the file. Raises InvalidRequest."""
    kind, pairing = file.kind, request.chosen_pairing.kind
    with_answers = (DatasetKind.PREFERENCE, DatasetKind.DEMONSTRATION)
    if pairing is PairingKind.FILE and kind not in with_answers:
        raise _fault("/pairing/kind", f"file needs the file's own answers, and its rows are of kind {kind.value}")
    usable = with_answers if pairing is PairingKind.BEST else (DatasetKind.PREFERENCE,)
    if request.file_ratio and kind not in usable:
        made = "best answers" if pairing is PairingKind.BEST else "pairs"
        raise _fault("/file_ratio", f"rows of kind {kind.value} cannot be mixed with {made}; leave it out")


def _require_model(backend: Backend, project_id: str, name: str) -> None:
    try:
        served_models.require_all(backend, project_id, [name])
    except DomainError as error:
        if error.kind not in ("invalid", "not_found"):
            raise
        raise _fault("/job/base_model", error.detail) from error


def _require_judges(backend: Backend, project_id: str, request: RoundsRequest) -> None:
    judgements.require_judge(backend, project_id, request.judge)
    if request.evaluation.judge is None:
        return
    try:
        judgements.require_judge(backend, project_id, request.evaluation.judge)
    except InvalidRequest as error:
        errors = [FieldError(f"/evaluation{fault.pointer}", fault.detail) for fault in error.errors]
        raise InvalidRequest(f"/evaluation{error.detail}", errors=errors) from error


def _checkable_jobs(request: RoundsRequest, rounds_id: str) -> dict[str, JobRequest]:
    """Return the jobs by their place, on the file in place of the pairs that are not there yet."""
    job, initial = request.job, request.initial
    found = {}
    if initial is not None:
        found["/initial"] = round_job(
            initial, 0, base_model=initial.base_model, dataset_id=initial.dataset_id, rounds_id=rounds_id
        )
    found["/job"] = round_job(job, 1, base_model=job.base_model, dataset_id=job.dataset_id, rounds_id=rounds_id)
    return found


def _check_job(session: Session, project_id: str, pointer: str, draft: submission.Draft) -> None:
    """Check a job as `POST /jobs` would. Raises InvalidRequest naming its faults."""
    try:
        submission.settle(session, project_id, draft)
    except InvalidRequest as error:
        is_of_rounds = pointer == "/job"
        errors = [
            FieldError(f"{pointer}{fault.pointer}", fault.detail)
            for fault in error.errors
            if not (is_of_rounds and fault.pointer == "/dataset_id")  # it trains on pairs of the rounds
        ]
        if errors:
            raise InvalidRequest(f"{pointer[1:]}: {error.detail}", errors=errors) from None


@reads
def get(session: Session, project_id: str, rounds_id: str) -> RoundsView:
    return view_rounds(session, [find(session, project_id, rounds_id)])[0]


@reads
def list_page(session: Session, project_id: str, *, limit: int = 20, cursor: str | None = None) -> Page[RoundsView]:
    """Return a page of rounds, newest first."""
    before = decode_cursor(cursor) if cursor else None
    found = rows.list_rounds(session, project_id, before=before, limit=limit + 1)
    shown = found[:limit]
    next_cursor = encode_cursor(shown[-1].id) if len(found) > limit else None
    return Page(data=view_rounds(session, shown), next_cursor=next_cursor)


def cancel(backend: Backend, project_id: str, rounds_id: str) -> tuple[RoundsView, bool]:
    """Cancel rounds, and tell whether that changes them; `progress` carries it to the child. Raises RoundsEnded."""
    return _change(backend, project_id, rounds_id, "rounds.cancel", partial(_steer, status=RoundsStatus.CANCELLED))


def pause(backend: Backend, project_id: str, rounds_id: str) -> tuple[RoundsView, bool]:
    """Pause rounds: a job stops at a checkpoint; another child goes on to its end, and none follows it."""
    return _change(backend, project_id, rounds_id, "rounds.pause", partial(_steer, status=RoundsStatus.PAUSED))


def _steer(session: Session, row: Rounds, *, status: RoundsStatus) -> bool:
    if row.status is status:
        return False
    if row.status not in (RoundsStatus.RUNNING, RoundsStatus.PAUSED):
        raise RoundsEnded(f"The rounds are {row.status.value}.")
    row.status = status
    return True


def resume(backend: Backend, project_id: str, rounds_id: str) -> tuple[RoundsView, bool]:
    """Resume paused rounds, or failed ones, whose failed stage is tried again by a new child.

    Raises RoundsEnded, TooManyRounds.
    """
    return _change(backend, project_id, rounds_id, "rounds.resume", partial(_resume, suffix=new_suffix()))


def _resume(session: Session, row: Rounds, *, suffix: str) -> bool:
    if row.status is RoundsStatus.RUNNING:
        return False
    if row.status not in (RoundsStatus.PAUSED, RoundsStatus.FAILED):
        advice = "; extend them to go on" if row.status is RoundsStatus.FINISHED else ""
        raise RoundsEnded(f"The rounds are {row.status.value}{advice}.")
    if row.status is RoundsStatus.FAILED:
        _require_room(session, row.project_id)
        renewal.renew_failed(session, Run.read(session, row), suffix)
        row.finished_at = row.error_detail = None
    row.status = RoundsStatus.RUNNING
    return True


def extend(backend: Backend, project_id: str, rounds_id: str, num_rounds: int) -> tuple[RoundsView, bool]:
    """Allow so many rounds all together; rounds that have finished go on.

    Raises RoundsEnded, TooManyRounds, InvalidRequest.
    """
    suffixes = [new_suffix() for _ in RoundStage]
    work = partial(_extend, num_rounds=num_rounds, suffixes=suffixes)
    return _change(backend, project_id, rounds_id, "rounds.extend", work)


def _extend(session: Session, row: Rounds, *, num_rounds: int, suffixes: Sequence[str]) -> bool:
    if row.status in (RoundsStatus.CANCELLED, RoundsStatus.FAILED):
        advice = "; resume them first" if row.status is RoundsStatus.FAILED else ""
        raise RoundsEnded(f"The rounds are {row.status.value}{advice}.")
    run = Run.read(session, row)
    number = run.last_number
    if num_rounds < number:
        raise _fault("/num_rounds", f"{number} rounds are done or under way; give more to go on")
    is_changed = row.num_rounds != num_rounds
    row.num_rounds = num_rounds
    if row.status is RoundsStatus.FINISHED and num_rounds > number:
        _require_room(session, row.project_id)
        stages = [(number + 1, stage) for stage in run.next_stages()]
        add_steps(session, row, stages, suffixes, len(run.steps))
        row.status, row.stop_reason, row.finished_at = RoundsStatus.RUNNING, None, None
        return True
    return is_changed


@writes
def delete(session: Session, project_id: str, rounds_id: str) -> None:
    """Delete the record of rounds that have ended; all that they made stays.

    Raises RoundsNotFound, RoundsNotDeletable.
    """
    row = _lock(session, project_id, rounds_id)
    if row.finished_at is None:
        raise RoundsNotDeletable(f"The rounds are {row.status.value}; cancel them first, and wait for their child.")
    rows.delete_rounds(session, row.id)
    audit.note(session, project_id, "rounds.delete", rounds_id)


@writes
def _change(
    session: Session, project_id: str, rounds_id: str, action: str, change: Callable[[Session, Rounds], bool]
) -> tuple[RoundsView, bool]:
    row = _lock(session, project_id, rounds_id)
    is_changed = change(session, row)
    session.flush()
    if is_changed:
        audit.note(session, project_id, action, rounds_id)
    return view_rounds(session, [row])[0], is_changed


def find(session: Session, project_id: str, rounds_id: str) -> Rounds:
    """Return the row; raises RoundsNotFound."""
    row = rows.find_rounds(session, project_id, rounds_id)
    if row is None:
        raise RoundsNotFound(f"There are no rounds {rounds_id}.")
    return row


def _lock(session: Session, project_id: str, rounds_id: str) -> Rounds:
    """Return the row, locked until the transaction ends; raises RoundsNotFound."""
    find(session, project_id, rounds_id)
    row = rows.lock_rounds(session, rounds_id)
    if row is None:
        raise RoundsNotFound(f"There are no rounds {rounds_id}.")
    return row


def _fault(pointer: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer}: {fault}", errors=[FieldError(pointer, fault)])
