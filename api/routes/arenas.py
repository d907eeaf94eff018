"""`/arenas`: blind pairs, votes, standing, and the dataset that votes become."""

from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.access.callers import Caller
from api.access.shares import holder_of, shares_of
from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, IdempotencyKey, Limit, RunnerDep
from api.docs.openapi import problems
from api.http.clients import unless_gone
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.schemas.arenas import Arena, LeasedPairs, NewVote, Vote
from api.schemas.base import Page
from api.schemas.datasets import Dataset
from api.threads import Lane, in_lane
from core.domain.arenas.arenas import ArenaPatch, ArenaRequest, LeaseRequest
from core.services.arenas import answers, arenas, cutting, voting

ArenaId = Annotated[str, Path(description="Id of an arena.", max_length=64)]
VoteId = Annotated[str, Path(description="Id of a vote.", max_length=64)]
CREATING_PROBLEMS = problems(400, 404, 409, 413, 415, 422, 503)

router = APIRouter(tags=["arenas"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.post(
    "/arenas",
    status_code=201,
    response_model=Arena,
    response_description="Made, with its pairs. `Location` names it.",
    responses=problems(400, 409, 413, 415, 422, 503),
)
@in_lane(Lane.STORE)
def create_arena(
    body: ArenaRequest, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Make an arena of two models and prompts, or of the rows of a dataset."""

    def create(arena_id: str | None) -> Created:
        view = arenas.create(backend, caller.project_id, body, arena_id=arena_id)
        return Created(body=Arena.model_validate(view), headers={"Location": f"/arenas/{view.id}"})

    return answer_once(backend, creating(request, caller.project_id, key), "arena", create)


@router.get("/arenas", responses=problems(422, 503))
def list_arenas(
    backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Arena]:
    """List the arenas, newest first."""
    page = arenas.list_page(backend, caller.project_id, limit=limit, cursor=cursor)
    return Page[Arena].model_validate(page)


@router.get("/arenas/{arena_id}", responses=problems(404, 503))
def get_arena(arena_id: ArenaId, backend: BackendDep, caller: CallerDep) -> Arena:
    """Return one arena with its standing."""
    return Arena.model_validate(arenas.get(backend, caller.project_id, arena_id))


@router.patch("/arenas/{arena_id}", responses=problems(400, 404, 409, 413, 415, 422, 503))
def change_arena(arena_id: ArenaId, body: ArenaPatch, backend: BackendDep, caller: CallerDep) -> Arena:
    """Close an arena, or open it again."""
    return Arena.model_validate(arenas.set_open(backend, caller.project_id, arena_id, is_open=body.is_open))


@router.delete("/arenas/{arena_id}", status_code=204, responses=problems(404, 503))
def delete_arena(arena_id: ArenaId, backend: BackendDep, caller: CallerDep) -> None:
    """Delete an arena with its votes; a dataset that was cut from them stays."""
    arenas.delete(backend, caller.project_id, arena_id)


@router.post(
    "/arenas/{arena_id}/leases",
    response_model=LeasedPairs,
    responses=problems(400, 404, 409, 413, 415, 422, 429, 503),
)
async def lease_pairs(
    arena_id: ArenaId, body: LeaseRequest, request: Request, backend: BackendDep, caller: CallerDep, runner: RunnerDep
) -> LeasedPairs | Response:
    """Get pairs to judge, which nobody else gets for ten minutes; the models answer where they have not yet."""
    voter = _voter(caller, body.voter)
    asked = answers.Voter(project_id=caller.project_id, arena_id=arena_id, name=voter)
    share = shares_of(request.scope).answers
    with share.hold(holder_of(request.scope), min(body.count, share.most_of_one)):
        held = await unless_gone(request.receive, answers.next_pairs(backend, runner, asked, body.count))
    if held is None:
        return Response(status_code=499)
    return LeasedPairs.model_validate({"voter": voter, "data": held}, from_attributes=True)


@router.post(
    "/arenas/{arena_id}/votes",
    status_code=201,
    response_model=Vote,
    response_description="Counted; the models are told now.",
    responses=CREATING_PROBLEMS,
)
def create_vote(
    arena_id: ArenaId,
    body: NewVote,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    *,
    key: IdempotencyKey = None,
) -> Response:
    """Judge a pair. The same vote sent again counts once, with or without an Idempotency-Key."""
    voter = _voter(caller, body.voter)
    given = voting.Vote(pair_id=body.pair_id, voter=voter, choice=body.verdict, comment=body.comment)

    def create(vote_id: str | None) -> Created:
        found = voting.vote(backend, caller.project_id, arena_id, given, vote_id=vote_id)
        return Created(body=Vote.model_validate(found))

    return answer_once(backend, creating(request, caller.project_id, key), "vote", create)


@router.get("/arenas/{arena_id}/votes", responses=problems(404, 422, 503))
def list_votes(
    arena_id: ArenaId, backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Vote]:
    """List the votes, newest first."""
    page = voting.list_votes(backend, caller.project_id, arena_id, limit=limit, cursor=cursor)
    return Page[Vote].model_validate(page)


@router.delete("/arenas/{arena_id}/votes/{vote_id}", status_code=204, responses=problems(404, 503))
def delete_vote(arena_id: ArenaId, vote_id: VoteId, backend: BackendDep, caller: CallerDep) -> None:
    """Take a vote back; its pair can be judged again."""
    voting.retract(backend, caller.project_id, arena_id, vote_id)


@router.post(
    "/arenas/{arena_id}/dataset",
    status_code=201,
    response_model=Dataset,
    response_description="A new version, of all pairs with a better answer. `Location` names it.",
    responses={
        200: {"model": Dataset, "description": "The votes are those of the newest version."},
        **problems(404, 409, 413, 422, 503, 507),
    },
)
async def cut_dataset(
    arena_id: ArenaId, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Make the votes so far a version of the arena's preference dataset, which a job can take."""

    def create(dataset_id: str | None) -> Created:
        view, is_new = cutting.cut(backend, caller.project_id, arena_id, dataset_id=dataset_id)
        headers = {"Location": f"/datasets/{view.id}"}
        return Created(body=Dataset.model_validate(view), status=201 if is_new else 200, headers=headers)

    asked = creating(request, caller.project_id, key).with_lease(backend.settings.check_timeout_seconds)
    limiter = request.app.state.upload_desk.check_limiter
    return await to_thread.run_sync(partial(answer_once, backend, asked, "ds", create), limiter=limiter)


def _voter(caller: Caller, name: str | None) -> str:
    """Return who votes: the name given, at the holder of the key."""
    return f"{name}@{caller.name}"[:255] if name else caller.name
