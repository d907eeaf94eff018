"""Health: liveness and readiness, open to those without a key, and metrics for Prometheus."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from http import HTTPStatus

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from api.access.proxies import IS_PROXIED
from api.deps import NEEDS_KEY, BackendDep, CallerDep, FeedsDep, ReadinessDep
from api.docs.openapi import problems
from api.http.problems import NOT_READY, RETRY_AFTER_SECONDS, Fault, problem_response
from api.http.root_path import root_path
from api.http.strict_route import StrictRoute
from api.readiness import installed_versions
from api.schemas.health import Liveness, Readiness
from api.telemetry import CONTENT_TYPE, HttpTelemetry
from core.domain.access import Scope
from core.services.operations.way_in import ECHO_PATH, ECHO_SECONDS, FORWARDED

router = APIRouter(tags=["health"], route_class=StrictRoute)


@router.get("/health/live")
async def get_liveness() -> Liveness:
    """Report that the process answers. It asks nothing else and takes no thread."""
    return Liveness(status="ok")


@router.get(
    "/health/ready",
    response_model=Readiness,
    response_model_exclude_none=True,
    responses=problems(HTTPStatus.SERVICE_UNAVAILABLE),
)
async def get_readiness(request: Request, caller: CallerDep, readiness: ReadinessDep) -> Readiness | Response:
    """Report whether database, store and broker answer; 503 when requests cannot be served. Admins see versions."""
    found = await readiness.ask()
    if found.status != "down":
        is_operator = caller.scope.includes(Scope.OPERATOR)
        return Readiness(**asdict(found), versions=installed_versions() if is_operator else None)
    down = ", ".join(name for name, state in asdict(found).items() if state == "down" and name != "status")
    fault = Fault(
        kind=NOT_READY,
        detail=f"No answer from: {down}.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        context={"database": found.database, "store": found.store, "broker": found.broker},
    )
    return problem_response(request.scope, fault)


@router.get(ECHO_PATH, include_in_schema=False)
async def get_echo(request: Request) -> Response:
    """Tell `preftune doctor --url` what arrived, as an event stream of two events that shows who keeps streams back."""
    is_forwarded = any(name in request.headers for name in FORWARDED)
    is_believed = request.scope["state"].get(IS_PROXIED, False)
    found = {
        "scheme": request.scope["scheme"],
        "host": request.headers.get("host", ""),
        "root_path": root_path(),
        "forwarded": ("believed" if is_believed else "ignored") if is_forwarded else "none",
    }

    async def events() -> AsyncIterator[str]:
        yield f"data: {json.dumps(found)}\n\n"
        await asyncio.sleep(ECHO_SECONDS)
        yield "data: {}\n\n"

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), 200, headers, "text/event-stream")


@router.get(
    "/metrics",
    dependencies=NEEDS_KEY,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_prometheus_metrics(request: Request, backend: BackendDep, feeds: FeedsDep) -> Response:
    """Return Prometheus metrics: jobs by status, waits, steps, lost leases, this process's HTTP requests."""
    telemetry: HttpTelemetry = request.app.state.telemetry
    return Response(telemetry.exposition(backend, feeds.num_streams), 200, {"Content-Type": CONTENT_TYPE})
