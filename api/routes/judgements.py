"""`/judgements`: which of two answers is better, by rules, rewards or a language model."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, IdempotencyKey, Limit
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.routes.jobs import JobId
from api.schemas.base import Page
from api.schemas.judgements import JudgeAgreement, JudgedPair, Judgement, PolicyWinRate
from api.steering import answer_change, steered
from api.threads import Lane, in_lane
from core.domain.judging.judgements import JudgementRequest, PairState
from core.services.judgements import judgements, policy_rates

JudgementId = Annotated[str, Path(description="Id of a judgement.", max_length=64)]
OfDataset = Annotated[
    str | None, Query(min_length=1, max_length=64, description="Only those that read this dataset, or this version.")
]
OfJob = Annotated[
    str | None, Query(min_length=1, max_length=64, description="Only those with a policy of this job among the models.")
]
PairSearch = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=200,
        description="Only pairs of which the prompt, an answer or what the judge says holds this text; upper and lower "
        "case are one. A page looks through 1,000 pairs: it may be empty and have a `next_cursor`.",
    ),
]

router = APIRouter(tags=["judgements"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.post(
    "/judgements",
    status_code=201,
    response_model=Judgement,
    response_description="Queued, with its pairs. `Location` names it.",
    responses=problems(400, 409, 413, 415, 422, 503),
)
@in_lane(Lane.STORE)
def create_judgement(
    body: JudgementRequest, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Have pairs of answers judged; the verdicts give a win rate and a preference dataset."""

    def create(judgement_id: str | None) -> Created:
        view = judgements.create(backend, caller.project_id, body, judgement_id=judgement_id)
        return Created(body=Judgement.model_validate(view), headers={"Location": f"/judgements/{view.id}"})

    return answer_once(backend, creating(request, caller.project_id, key), "judge", create)


@router.get("/judgements", responses=problems(422, 503))
def list_judgements(
    backend: BackendDep,
    caller: CallerDep,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    *,
    dataset_id: OfDataset = None,
    job_id: OfJob = None,
) -> Page[Judgement]:
    """List the judgements, newest first."""
    page = judgements.list_page(
        backend, caller.project_id, limit=limit, cursor=cursor, dataset_id=dataset_id, job_id=job_id
    )
    return Page[Judgement].model_validate(page)


@router.get("/judgements/{judgement_id}", responses=problems(404, 503))
def get_judgement(judgement_id: JudgementId, backend: BackendDep, caller: CallerDep) -> Judgement:
    """Return one judgement with its progress, and once it has ended its win rate."""
    return Judgement.model_validate(judgements.get(backend, caller.project_id, judgement_id))


@router.get("/judgements/{judgement_id}/pairs", responses=problems(404, 422, 503))
def list_judged_pairs(
    judgement_id: JudgementId,
    backend: BackendDep,
    caller: CallerDep,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    *,
    verdict: Annotated[
        PairState | None,
        Query(description="Only pairs with this verdict; `failed`: the judge gave none; `open`: not judged yet."),
    ] = None,
    search: PairSearch = None,
) -> Page[JudgedPair]:
    """List the pairs with their verdicts, in order."""
    page = judgements.list_pairs(
        backend, caller.project_id, judgement_id, limit=limit, cursor=cursor, state=verdict, search=search
    )
    return Page[JudgedPair].model_validate(page)


@router.get("/judgements/{judgement_id}/agreement", responses=problems(404, 422, 503))
def get_judge_agreement(
    judgement_id: JudgementId,
    backend: BackendDep,
    caller: CallerDep,
    against: Annotated[str, Query(description="Another judgement, of the same pairs.", max_length=64)],
) -> JudgeAgreement:
    """Compare two judges: how often they say the same of the pairs that both have judged."""
    found = judgements.compare(backend, caller.project_id, judgement_id, against)
    return JudgeAgreement.model_validate(found._asdict())


@router.post(
    "/judgements/{judgement_id}/cancel",
    **steered(Judgement, "Cancelled; its worker stops within seconds.", already="Already cancelled."),
)
def cancel_judgement(judgement_id: JudgementId, backend: BackendDep, caller: CallerDep) -> Response:
    """Cancel a judgement; verdicts that are there stay, but give no dataset."""
    return answer_change(Judgement, *judgements.cancel(backend, caller.project_id, judgement_id))


@router.delete("/judgements/{judgement_id}", status_code=204, responses=problems(404, 409, 503))
def delete_judgement(judgement_id: JudgementId, backend: BackendDep, caller: CallerDep) -> None:
    """Delete a judgement that has ended, with its pairs; its dataset stays."""
    judgements.delete(backend, caller.project_id, judgement_id)


@router.get("/jobs/{job_id}/win-rates", responses=problems(404, 422, 503))
def list_job_win_rates(
    job_id: JobId, backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[PolicyWinRate]:
    """List what was judged of a job's policies, each with its step, newest first."""
    page = policy_rates.list_page(backend, caller.project_id, job_id, limit=limit, cursor=cursor)
    return Page[PolicyWinRate].model_validate(page)
