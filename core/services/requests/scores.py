"""Rewards on request: of a policy `beta * log(policy / reference)`, by the job's own variant, or of a reward model.

A request is a row. A lane of a worker that does nothing else claims it, so that it never waits behind training.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import objects, requests
from core.database.tables.jobs import Job
from core.database.tables.requests import Leased
from core.database.tables.scores import ScoreRequest
from core.domain.errors import Conflict, FieldError, InvalidRequest, NotFound
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import method_of
from core.domain.jobs.stored_files import StoredTree
from core.domain.request_status import RequestStatus
from core.domain.variants.checks import get_variant
from core.services.access import audit
from core.services.backend import Backend
from core.services.ids import new_id
from core.services.jobs import jobs
from core.services.jobs.sft_policies import find_sft_policy
from core.services.requests import requests as light_requests
from core.services.requests.requests import RequestLease
from core.services.transactions import reads, writes
from core.services.views import from_row

MAX_WAITING = 100
"""Requests of a project that are not done."""


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
    status: RequestStatus
    results: list[dict[str, Any]] | None
    error: str | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A job that scores texts, and where its models are."""

    spec: dict[str, Any]
    published: StoredTree
    """What the job published: its policy, or a reward model, which needs nothing else."""
    sft: StoredTree | None = None
    base_model_name: str | None = None
    """Folder of the models directory that the job started from; None: `base_policy`."""
    base_policy: StoredTree | None = None
    submitted_at: datetime
    """Time that the chat template sees."""


@dataclass(frozen=True, kw_only=True)
class ScoreClaim:
    """A claimed request and what scores it."""

    lease: RequestLease
    scorer: Scorer
    is_pairs: bool
    rows: list[dict[str, Any]]
    by_token: bool
    """Whether the tokens of each response are wanted with their log-ratios."""


def create(
    backend: Backend, project_id: str, job_id: str, request: dict[str, Any], *, score_id: str | None = None
) -> ScoreView:
    """Request scores of `items` or `pairs`. Raises JobNotFound, NothingToScoreWith, TooManyScoreRequests."""
    chosen = score_id or new_id("score")

    def work(session: Session) -> ScoreView:
        known = requests.find_request(session, ScoreRequest, job_id, chosen)
        if known is not None:
            return _view(known)
        job = jobs.lock(session, project_id, job_id)
        if request.get("tokens") and not method_of(job.spec).publishes_policy:
            fault = "has no meaning with a reward model, which gives a text one number; leave it out"
            raise InvalidRequest(f"tokens {fault}.", errors=[FieldError("/tokens", fault)])
        require_rewards(session, job)
        row = ScoreRequest(id=chosen, job_id=job_id, project_id=project_id, request=request, results={})
        light_requests.submit(
            session, row, max_waiting=MAX_WAITING, what="requests for scores", too_many=TooManyScoreRequests
        )
        audit.note(session, project_id, "score.create", chosen, job_id=job_id)
        return _view(row)

    return backend.database.write(work)


def require_rewards(session: Session, job: Job) -> None:
    """Check that a job gives rewards and has published what gives them. Raises NothingToScoreWith."""
    _require_method(job)
    if objects.find_artifact(session, job.id) is None:
        raise NothingToScoreWith(f"{job.id} is {job.status.value} and has published nothing to score with.")


def _require_method(job: Job) -> None:
    if not method_of(job.spec).has_rewards:
        raise NothingToScoreWith(f"{job.id} is a {job.spec['method']} job, whose policy gives no rewards.")


@reads
def get(session: Session, project_id: str, job_id: str, score_id: str) -> ScoreView:
    """Return a request's scores. Raises JobNotFound, ScoresNotFound."""
    return _view(light_requests.find(session, ScoreRequest, project_id, job_id, score_id, ScoresNotFound))


def claim(backend: Backend, lease_seconds: float) -> ScoreClaim | None:
    """Claim the next request; None without one."""
    return light_requests.claim_next(backend, ScoreRequest, lease_seconds, partial(_find_inputs, backend))


def finish(backend: Backend, claim: ScoreClaim, results: list[dict[str, Any]]) -> None:
    def change(_session: Session, row: Leased) -> None:
        assert isinstance(row, ScoreRequest)
        row.results = {"results": results}

    light_requests.end(backend, claim.lease, RequestStatus.SUCCEEDED, change)


def _find_inputs(backend: Backend, row: ScoreRequest, lease: RequestLease) -> ScoreClaim:
    return ScoreClaim(
        lease=lease,
        scorer=find_scorer(backend, row.project_id, row.job_id),
        is_pairs="pairs" in row.request,
        rows=row.request.get("pairs") or row.request["items"],
        by_token=bool(row.request.get("tokens")),
    )


def find_scorer(backend: Backend, project_id: str, job_id: str) -> Scorer:
    """Return the models of a job that gives rewards.

    Raises NotFound, InvalidRequest and Conflict with a sentence for users.
    """

    job, published, base_model_name, base_policy = _read(backend, project_id, job_id)
    return Scorer(
        spec=job.spec,
        published=published,
        sft=_find_sft(backend, job, published),
        base_model_name=base_model_name,
        base_policy=base_policy,
        submitted_at=job.created_at,
    )


@writes
def _read(session: Session, project_id: str, job_id: str) -> tuple[Job, StoredTree, str | None, StoredTree | None]:
    job = jobs.find(session, project_id, job_id)
    _require_method(job)
    published = light_requests.find_published(session, job, NothingToScoreWith)
    if not method_of(job.spec).publishes_policy:
        return job, published, None, None
    return job, published, *light_requests.find_base(session, job)


def _find_sft(backend: Backend, job: Job, policy: StoredTree) -> StoredTree | None:
    """Return the policy before DPO, where SFT made it and rewards need it."""
    if not method_of(job.spec).has(Stage.REFERENCE):
        return None
    if job.spec["sft"] == "skip" or not get_variant(job.spec["variant"]).needs_reference:
        return None
    found = find_sft_policy(backend, job, policy)
    if found is None:
        raise NothingToScoreWith(
            "The policy before DPO is not kept (the job that made it was deleted, or sent with reuse: false), and "
            "rewards are measured against it."
        )
    return found


def _view(row: ScoreRequest) -> ScoreView:
    is_done = row.status is RequestStatus.SUCCEEDED
    return from_row(ScoreView, row, results=row.results.get("results", []) if is_done else None, error=row.error_detail)
