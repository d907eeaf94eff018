"""Checks of a request for rounds against the database: that all it names is there, and that its jobs can be trained."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from core.database.tables.datasets import Dataset
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import DomainError, FieldError, InvalidRequest
from core.domain.jobs.job_spec import JobRequest
from core.domain.judging.pairing import PairingKind
from core.domain.judging.round_checks import check_request
from core.domain.judging.rounds import RoundsRequest, round_job
from core.services.backend import Backend
from core.services.chat import served_models
from core.services.datasets import datasets
from core.services.datasets.versions.versions import at_version
from core.services.jobs import submission
from core.services.judgements import judgements
from core.services.rounds import held_out


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A request whose datasets, models and judges are there."""

    pinned: RoundsRequest
    """The request with the versions of its datasets named."""
    drafts: dict[str, submission.Draft]
    """Its jobs by their place, on the file in place of the pairs that are not there yet."""

    def settle(self, session: Session, project_id: str) -> None:
        """Check the jobs as `POST /jobs` would. Raises InvalidRequest naming their faults."""
        for pointer, draft in self.drafts.items():
            _check_job(session, project_id, pointer, draft)


def check(backend: Backend, project_id: str, request: RoundsRequest, *, rounds_id: str) -> Checked:
    """Check a request, but for its jobs, which `settle` checks. Raises InvalidRequest naming the fault."""
    check_request(request)
    pinned = _pinned(backend, project_id, request)
    _require_model(backend, project_id, request.job.base_model)
    _require_judges(backend, project_id, request)
    held_out.check(backend, project_id, pinned)
    jobs = _checkable_jobs(pinned, rounds_id)
    return Checked(pinned=pinned, drafts={place: submission.prepare(backend, job) for place, job in jobs.items()})


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


def _fault(pointer: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer}: {fault}", errors=[FieldError(pointer, fault)])
