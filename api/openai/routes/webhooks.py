"""`/v1/webhook_endpoints`: the webhooks of this service, as OpenAI's clients of version 3 drive them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request

from api.deps import MAX_LIMIT, NEEDS_KEY, BackendDep, CallerDep, IdempotencyKey
from api.http.idempotent import Created, creating
from api.http.problems import NO_ANSWER, HttpError
from api.http.strict_route import StrictRoute
from api.openai.files import seconds
from api.openai.intent import answer_intent
from api.openai.objects import Answer, ListPage
from api.schemas.webhooks import EventTypes, WebhookUrl
from api.threads import Lane, in_lane
from core.domain.jobs.job_spec import Name, Payload
from core.services.cursors import encode_cursor
from core.services.webhooks import delivery, endpoints
from core.services.webhooks.endpoints import EndpointView, NewSecret

WebhookId = Annotated[str, Path(description="Id of a webhook.", max_length=64)]
After = Annotated[str | None, Query(max_length=64, description="The last id of the page before.")]

router = APIRouter(route_class=StrictRoute, dependencies=NEEDS_KEY)


class NewEndpoint(Payload):
    """The body of `POST /v1/webhook_endpoints`."""

    name: Name
    url: WebhookUrl
    event_types: EventTypes


class EndpointPatch(Payload):
    """The body of `POST /v1/webhook_endpoints/{id}`."""

    name: Name | None = None
    url: WebhookUrl | None = None
    event_types: EventTypes | None = None


class SecretRotation(Payload):
    """The body of `POST /v1/webhook_endpoints/{id}/rotate_secret`."""

    keep_old_secret_active_for_24_hours: bool = False


class SampleEvent(Payload):
    """The body of `POST /v1/webhook_endpoints/{id}/test`."""

    event_type: Name


class Endpoint(Answer):
    """A webhook; `signing_secret` is there once, when it is new."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    is_enabled: bool
    disabled_reason: str | None


class EndpointWithSecret(Endpoint):
    signing_secret: str


class TestResult(Answer):
    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    success: Literal[True] = True
    webhook_endpoint_id: str
    event_type: str
    status_code: int


@router.get("/v1/webhook_event_types")
def list_event_types(caller: CallerDep) -> dict[str, Any]:
    """The events that this service sends."""
    return {"object": "list", "data": list(endpoints.TYPES)}


@router.post("/v1/webhook_endpoints")
@in_lane(Lane.WEBHOOKS)
def create_endpoint(
    body: NewEndpoint, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> EndpointWithSecret:
    """Send events of this project's jobs to an address."""

    def create(endpoint_id: str | None) -> Created:
        made = endpoints.create(backend, caller.project_id, **body.model_dump(), endpoint_id=endpoint_id)
        return Created(body=_shown(made.endpoint), status=200)

    # The answer that is kept for repetitions is without the secret.
    response = answer_intent(backend, request, caller, creating(request, caller.project_id, key), "wh", create)
    endpoint = Endpoint.model_validate_json(bytes(response.body))
    secret = endpoints.current_secret(backend, caller.project_id, endpoint.id)
    return EndpointWithSecret(**endpoint.model_dump(), signing_secret=secret)


@router.get("/v1/webhook_endpoints")
def list_endpoints(
    backend: BackendDep,
    caller: CallerDep,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Items of a page.")] = 20,
    after: After = None,
) -> ListPage[Endpoint]:
    """The webhooks, newest first."""
    cursor = encode_cursor(after) if after else None
    page = endpoints.list_page(backend, caller.project_id, limit=min(limit, MAX_LIMIT), cursor=cursor)
    return ListPage[Endpoint].of([_shown(view) for view in page.data], has_more=page.next_cursor is not None)


@router.get("/v1/webhook_endpoints/{webhook_id}")
def get_endpoint(webhook_id: WebhookId, backend: BackendDep, caller: CallerDep) -> Endpoint:
    """Get one webhook."""
    return _shown(endpoints.get(backend, caller.project_id, webhook_id))


@router.post("/v1/webhook_endpoints/{webhook_id}")
@in_lane(Lane.WEBHOOKS)
def update_endpoint(webhook_id: WebhookId, body: EndpointPatch, backend: BackendDep, caller: CallerDep) -> Endpoint:
    """Change a webhook."""
    return _shown(endpoints.patch(backend, caller.project_id, webhook_id, body.model_dump(exclude_none=True)))


@router.delete("/v1/webhook_endpoints/{webhook_id}")
def delete_endpoint(webhook_id: WebhookId, backend: BackendDep, caller: CallerDep) -> dict[str, Any]:
    """Delete a webhook."""
    endpoints.delete(backend, caller.project_id, webhook_id)
    return {"id": webhook_id, "object": "webhook_endpoint.deleted", "deleted": True}


@router.post("/v1/webhook_endpoints/{webhook_id}/rotate_secret")
def rotate_secret(
    webhook_id: WebhookId, body: SecretRotation, backend: BackendDep, caller: CallerDep
) -> EndpointWithSecret:
    """Give the webhook a new signing secret."""
    keeps = body.keep_old_secret_active_for_24_hours
    return _with_secret(endpoints.rotate(backend, caller.project_id, webhook_id, keeps_previous=keeps))


@router.post("/v1/webhook_endpoints/{webhook_id}/test")
@in_lane(Lane.WEBHOOKS)
def send_sample(webhook_id: WebhookId, body: SampleEvent, backend: BackendDep, caller: CallerDep) -> TestResult:
    """Send a sample event now."""
    outcome = delivery.ping(backend, caller.project_id, webhook_id, body.event_type)
    if outcome.status is None:
        raise HttpError(NO_ANSWER, outcome.error or "")
    return TestResult(webhook_endpoint_id=webhook_id, event_type=body.event_type, status_code=outcome.status)


def _shown(view: EndpointView) -> Endpoint:
    return Endpoint(
        id=view.id,
        created_at=seconds(view.created_at),
        updated_at=seconds(view.updated_at),
        name=view.name,
        url=view.url,
        event_types=view.event_types,
        signing_secret_hint=view.secret_hint,
        is_enabled=view.is_enabled,
        disabled_reason=view.disabled_reason,
    )


def _with_secret(made: NewSecret) -> EndpointWithSecret:
    return EndpointWithSecret(**_shown(made.endpoint).model_dump(), signing_secret=made.secret)
