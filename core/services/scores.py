"""Implicit rewards on request: `beta * log(policy / reference)` of what a job trained, by the job's own variant.

A request is a row. A lane of a worker that does nothing else claims it, so that it never waits behind training.
"""

import json
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import objects
from core.database.repositories import scores as score_rows
from core.database.tables.jobs import Job
from core.database.tables.scores import ScoreRequest, ScoreStatus
from core.domain.errors import Conflict, InvalidRequest, NotFound
from core.domain.variants import get_variant
from core.services import base_models, jobs
from core.services.attempts import StoredTree
from core.services.backend import Backend
from core.services.ids import new_id, new_suffix
from core.storage.object_store import ObjectNotFound

MAX_WAITING = 100
"""Requests of a project that are not done."""
MAX_TRIES = 3
SUMMARY_FILE = "evaluation.json"
_POLL_SECONDS = 0.2


class ScoresNotFound(NotFound):
    code = "scores-not-found"
    title = "There is no such request for scores"


class NothingToScoreWith(Conflict):
    code = "nothing-to-score-with"
    title = "The job has no policy to score with"


class TooManyScoreRequests(Conflict):
    code = "too-many-score-requests"
    title = "Too many requests for scores are waiting"


@dataclass(frozen=True, kw_only=True)
class ScoreView:
    id: str
    job_id: str
    status: ScoreStatus
    results: list[dict[str, Any]] | None
    error: str | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class ScoreClaim:
    """One request and where its models are."""

    id: str
    token: str
    spec: dict[str, Any]
    is_pairs: bool
    rows: list[dict[str, Any]]
    policy: StoredTree
    sft: StoredTree | None
    base_model_name: str | None
    base_policy: StoredTree | None
    submitted_at: datetime


def create(
    backend: Backend, project_id: str, job_id: str, request: dict[str, Any], *, score_id: str | None = None
) -> ScoreView:
    """`request` holds `items` or `pairs`. Raises JobNotFound, NothingToScoreWith, TooManyScoreRequests."""
    chosen = score_id or new_id("score")

    def work(session: Session) -> ScoreView:
        known = score_rows.find_request(session, job_id, chosen)
        if known is not None:
            return _view(known)
        job = jobs.lock(session, project_id, job_id)
        if objects.find_artifact(session, job_id) is None:
            raise NothingToScoreWith(f"{job_id} is {job.status.value} and has published no policy.")
        if score_rows.count_waiting(session, project_id) >= MAX_WAITING:
            raise TooManyScoreRequests(f"{MAX_WAITING} requests for scores are waiting; try again when some are done.")
        row = ScoreRequest(
            id=chosen,
            job_id=job_id,
            project_id=project_id,
            status=ScoreStatus.QUEUED,
            request=request,
            results={},
            num_tries=0,
            created_at=database_now(),
        )
        session.add(row)
        session.flush()
        return _view(row)

    return backend.database.write(work)


def get(backend: Backend, project_id: str, job_id: str, score_id: str, *, wait_seconds: float = 0.0) -> ScoreView:
    """Holds the answer until it is there, but not longer than `wait_seconds`. Raises ScoresNotFound."""

    def work(session: Session) -> ScoreView:
        jobs.find(session, project_id, job_id)
        row = score_rows.find_request(session, job_id, score_id)
        if row is None:
            raise ScoresNotFound(f"{job_id} has no scores {score_id}.")
        return _view(row)

    deadline = time.monotonic() + wait_seconds
    while True:
        view = backend.database.read(work)
        is_done = view.status in (ScoreStatus.SUCCEEDED, ScoreStatus.FAILED)
        if is_done or time.monotonic() >= deadline:
            return view
        time.sleep(_POLL_SECONDS)


def claim(backend: Backend, lease_seconds: float) -> ScoreClaim | None:
    """The next request. One that cannot be done at all is ended as failed, and the one after it looked for."""
    while True:
        token = new_suffix()
        row = backend.database.write(partial(score_rows.claim_next, token=token, lease_seconds=lease_seconds))
        if row is None:
            return None
        if row.num_tries > MAX_TRIES:
            fail(backend, row.id, token, "Scoring it ended the process each time; ask for fewer or shorter texts.")
            continue
        try:
            return _find_inputs(backend, row, token)
        except (InvalidRequest, NotFound, Conflict) as error:
            fail(backend, row.id, token, error.detail)


def renew(backend: Backend, claim: ScoreClaim, lease_seconds: float) -> bool:
    """False: another lane has the request, or its job is gone."""

    def work(session: Session) -> bool:
        row = score_rows.find_held(session, claim.id, claim.token)
        if row is not None:
            row.lease_expires_at = database_after(lease_seconds)
        return row is not None

    return backend.database.write(work)


def finish(backend: Backend, claim: ScoreClaim, results: list[dict[str, Any]]) -> None:
    _end(backend, claim.id, claim.token, ScoreStatus.SUCCEEDED, {"results": results}, None)


def fail(backend: Backend, score_id: str, token: str, detail: str) -> None:
    """`detail` is for the user."""
    _end(backend, score_id, token, ScoreStatus.FAILED, {}, detail)


def give_back(backend: Backend, claim: ScoreClaim) -> None:
    """This lane ends; another one may begin anew."""

    def work(session: Session) -> None:
        row = score_rows.find_held(session, claim.id, claim.token)
        if row is not None:
            row.status, row.lease_token, row.lease_expires_at = ScoreStatus.QUEUED, None, None
            row.num_tries -= 1

    backend.database.write(work)


def _end(
    backend: Backend, score_id: str, token: str, status: ScoreStatus, results: dict[str, Any], detail: str | None
) -> None:
    def work(session: Session) -> None:
        row = score_rows.find_held(session, score_id, token)
        if row is not None:
            row.status, row.results, row.error_detail = status, results, detail
            row.lease_token, row.lease_expires_at = None, None
            row.finished_at = database_now()

    backend.database.write(work)


def _find_inputs(backend: Backend, row: ScoreRequest, token: str) -> ScoreClaim:
    """Raises NotFound, InvalidRequest and Conflict with a sentence for the user."""

    def read(session: Session) -> tuple[Job, StoredTree]:
        job = jobs.find(session, row.project_id, row.job_id)
        artifact = objects.find_artifact(session, job.id)
        if artifact is None:
            raise NothingToScoreWith("The job's policy is gone.")
        return job, StoredTree(prefix=artifact.prefix, manifest_sha256=artifact.manifest_sha256)

    job, policy = backend.database.read(read)
    name = str(job.spec["base_model"])
    base_policy = None
    if base_models.is_job_reference(name):
        base_policy = backend.database.write(
            lambda session: base_models.find_policy(session, row.project_id, name).tree
        )
    return ScoreClaim(
        id=row.id,
        token=token,
        spec=job.spec,
        is_pairs="pairs" in row.request,
        rows=row.request.get("pairs") or row.request["items"],
        policy=policy,
        sft=_find_sft(backend, job, policy),
        base_model_name=None if base_policy else name,
        base_policy=base_policy,
        submitted_at=job.created_at,
    )


def _find_sft(backend: Backend, job: Job, policy: StoredTree) -> StoredTree | None:
    """The policy before DPO, where SFT made it and rewards need it."""
    if job.spec["sft"] == "skip" or not get_variant(job.spec["variant"]).needs_reference:
        return None
    try:
        summary = json.loads(backend.store.get_bytes(policy.prefix + SUMMARY_FILE))
        digest = str(summary["sft_digest"])
    except (ObjectNotFound, ValueError, KeyError):
        digest = ""
    output = backend.database.read(lambda session: objects.find_stage_output(session, job.project_id, digest))
    if output is None:
        raise NothingToScoreWith(
            "The policy before DPO is not kept (the job that made it was deleted, or sent with reuse: false), and "
            "rewards are measured against it."
        )
    return StoredTree(prefix=output.prefix, manifest_sha256=output.manifest_sha256)


def _view(row: ScoreRequest) -> ScoreView:
    is_done = row.status is ScoreStatus.SUCCEEDED
    return ScoreView(
        id=row.id,
        job_id=row.job_id,
        status=row.status,
        results=row.results.get("results", []) if is_done else None,
        error=row.error_detail,
        created_at=row.created_at,
    )
