"""Routes of `/keys`: make, list, rotate and end keys; an admin's are those of its project, an operator's all."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.access.callers import Caller
from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, IdempotencyKey, Limit
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.schemas.base import Page
from api.schemas.keys import CreatedKey, Key, KeyRotation, NewKey
from core.domain.access import Scope
from core.services.access import api_keys
from core.services.access.api_keys import KeyReach

PREFIX = "key"
KeyId = Annotated[str, Path(description="Id of a key.", max_length=64)]

router = APIRouter(tags=["access"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.post(
    "/keys",
    status_code=201,
    response_model=CreatedKey,
    response_description="Made; `token` is shown now and never again. `Location` names the key.",
    responses=problems(400, 404, 409, 413, 415, 422, 503),
)
def create_key(
    body: NewKey, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Make a key of the caller's project, up to the scope admin; operators make any."""

    def create(key_id: str | None) -> Created:
        made = api_keys.create(
            backend,
            body.project_id or caller.project_id,
            body.name,
            body.scope,
            lifetime_seconds=body.expires_in_seconds,
            keeps_answers=body.keeps_answers,
            reach=_reach(caller),
            key_suffix=_suffix(key_id),
        )
        return _created(made)

    return answer_once(backend, creating(request, caller.project_id, key), PREFIX, create)


@router.get("/keys", responses=problems(422, 503))
def list_keys(
    backend: BackendDep,
    caller: CallerDep,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    project_id: Annotated[
        str | None, Query(max_length=64, description="Only of this project; others than its own are for operators.")
    ] = None,
) -> Page[Key]:
    """Return the keys, newest first, dead ones too: of the caller's project, for operators of all."""
    reach = _reach(caller)
    if reach.project_id is not None and project_id not in (None, reach.project_id):
        return Page[Key](data=[], next_cursor=None)
    wanted = KeyReach(project_id=project_id or reach.project_id, with_operators=reach.with_operators)
    return Page[Key].model_validate(api_keys.list_page(backend, wanted, limit=limit, cursor=cursor))


@router.get("/keys/{key_id}", responses=problems(404, 503))
def get_key(key_id: KeyId, backend: BackendDep, caller: CallerDep) -> Key:
    """Return one key, without its secret."""
    return Key.model_validate(api_keys.get(backend, key_id, _reach(caller)))


@router.post(
    "/keys/{key_id}/rotate",
    status_code=201,
    response_model=CreatedKey,
    response_description="The new key; `token` is shown now and never again. `Location` names it.",
    responses=problems(400, 404, 409, 413, 415, 422, 503),
)
def rotate_key(
    key_id: KeyId,
    body: KeyRotation,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    *,
    key: IdempotencyKey = None,
) -> Response:
    """Make a like key; both work during the grace time."""

    def create(new_id: str | None) -> Created:
        made = api_keys.rotate(
            backend, key_id, grace_seconds=body.grace_seconds, reach=_reach(caller), key_suffix=_suffix(new_id)
        )
        return _created(made)

    return answer_once(backend, creating(request, caller.project_id, key), PREFIX, create)


@router.delete("/keys/{key_id}", status_code=204, responses=problems(404, 503))
def revoke_key(key_id: KeyId, backend: BackendDep, caller: CallerDep) -> None:
    """End a key; it stops working within two seconds."""
    api_keys.revoke(backend, key_id, _reach(caller))


def _reach(caller: Caller) -> KeyReach:
    if caller.scope.includes(Scope.OPERATOR):
        return api_keys.EVERYWHERE
    return KeyReach(project_id=caller.project_id, with_operators=False)


def _suffix(key_id: str | None) -> str | None:
    return None if key_id is None else key_id.removeprefix(f"{PREFIX}_")


def _created(made: api_keys.NewKey) -> Created:
    shown = Key.model_validate(made.key).model_dump()
    return Created(
        body=CreatedKey(**shown, token=made.token),
        kept=CreatedKey(**shown, token=None),
        headers={"Location": f"/keys/{made.key.id}"},
    )
