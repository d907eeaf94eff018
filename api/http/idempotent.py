"""Idempotent answers to creating requests: once for each Idempotency-Key."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

from anyio import CancelScope, to_thread
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from core.domain.errors import Unavailable
from core.failpoints import reach
from core.services.access import idempotency
from core.services.access.idempotency import IdempotentRequest, KeptAnswer, Reservation
from core.services.backend import Backend

REPLAYED_HEADER = "Idempotent-Replayed"
_NO_BODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Created:
    """Answer of a creating endpoint."""

    body: BaseModel
    kept: BaseModel | None = None
    """Body for requests that are sent again, where it differs: secrets are not kept."""
    status: int = 201
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CreatingRequest:
    """A creating request, with or without a key."""

    project_id: str
    route: str
    key: str | None
    body_sha256: str
    lease_seconds: float = idempotency.LEASE_SECONDS

    def with_lease(self, seconds: float) -> Self:
        return replace(self, lease_seconds=max(seconds, self.lease_seconds))


def creating(request: Request, project_id: str, key: str | None, body_sha256: str | None = None) -> CreatingRequest:
    """Return a dependency; `body_sha256` is the digest of what was sent, by default of the JSON body read."""
    digest = body_sha256 or str(getattr(request.state, "body_sha256", _NO_BODY))
    route = f"{request.method} {request.url.path}"
    return CreatingRequest(project_id=project_id, route=route, key=key, body_sha256=digest)


def answer_once(
    backend: Backend, request: CreatingRequest, prefix: str, create: Callable[[str | None], Created]
) -> Response:
    """Create, or repeat the first answer. `create` gets the id to create under, or None to choose one.

    Only successes are kept: what was refused created nothing, and is judged anew.
    """
    if request.key is None:
        return _response(_answer_of(create(None)))
    wanted = IdempotentRequest(key=request.key, route=request.route, body_sha256=request.body_sha256)
    reservation = idempotency.begin(backend, request.project_id, wanted, lease_seconds=request.lease_seconds)
    if isinstance(reservation, KeptAnswer):
        return _response(reservation, is_replayed=True)
    reach("request.reserved")
    created = _create(backend, reservation, prefix, create)
    reach("request.created")
    idempotency.finish(backend, reservation, _answer_of(replace(created, body=created.kept or created.body)))
    return _response(_answer_of(created))


async def answer_once_ended(
    backend: Backend,
    request: CreatingRequest,
    prefix: str,
    create: Callable[[str | None], Created],
    end: Callable[[Created], Awaitable[Created]],
) -> Response:
    """Answer like `answer_once`, with what `end` makes, perhaps slowly, of what was created."""
    reservation: Reservation | None = None
    if request.key is not None:
        wanted = IdempotentRequest(key=request.key, route=request.route, body_sha256=request.body_sha256)
        begin = partial(idempotency.begin, backend, request.project_id, wanted, lease_seconds=request.lease_seconds)
        begun = await to_thread.run_sync(begin)
        if isinstance(begun, KeptAnswer):
            return _response(begun, is_replayed=True)
        reservation = begun
    try:
        chosen = reservation.resource_id(prefix) if reservation else None
        answer = _answer_of(await end(await to_thread.run_sync(create, chosen)))
    except BaseException:
        if reservation is not None:
            with CancelScope(shield=True), suppress(Unavailable):  # the reservation then ends by itself
                await to_thread.run_sync(idempotency.abandon, backend, reservation)
        raise
    if reservation is not None:
        await to_thread.run_sync(idempotency.finish, backend, reservation, answer)
    return _response(answer)


def _create(
    backend: Backend, reservation: Reservation, prefix: str, create: Callable[[str | None], Created]
) -> Created:
    try:
        return create(reservation.resource_id(prefix))
    except BaseException:
        with suppress(Unavailable):  # the reservation then ends by itself
            idempotency.abandon(backend, reservation)
        raise


def _answer_of(created: Created) -> KeptAnswer:
    return KeptAnswer(status=created.status, headers=dict(created.headers), body=created.body.model_dump_json())


def _response(answer: KeptAnswer, *, is_replayed: bool = False) -> Response:
    headers = {**answer.headers, REPLAYED_HEADER: "true"} if is_replayed else answer.headers
    return Response(answer.body, answer.status, headers, "application/json")
