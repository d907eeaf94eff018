"""`/webhooks`: who is told when jobs end, and the log of what was sent."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, IdempotencyKey, Limit
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.schemas.base import Page
from api.schemas.webhooks import (
    Delivery,
    NewWebhook,
    Ping,
    PingResult,
    Webhook,
    WebhookPatch,
    WebhookRotation,
    WebhookWithSecret,
)
from api.threads import Lane, in_lane
from core.services.webhooks import delivery, endpoints
from core.services.webhooks.endpoints import NewSecret

WebhookId = Annotated[str, Path(description="Id of a webhook.", max_length=64)]

_OF_THE_BODY = ("content-length", "content-type")

router = APIRouter(tags=["webhooks"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.post(
    "/webhooks",
    status_code=201,
    response_model=WebhookWithSecret,
    response_description="Events of the project's jobs go to it. `Location` names it.",
    responses=problems(400, 409, 413, 415, 422, 503),
)
@in_lane(Lane.WEBHOOKS)
def create_webhook(
    body: NewWebhook, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Send events of this project's jobs to an address. The signing secret is in this answer only."""

    def create(endpoint_id: str | None) -> Created:
        made = endpoints.create(backend, caller.project_id, **body.model_dump(), endpoint_id=endpoint_id)
        webhook = Webhook.model_validate(made.endpoint)
        return Created(body=webhook, headers={"Location": f"/webhooks/{made.endpoint.id}"})

    # The answer that is kept for repetitions is without the secret.
    response = answer_once(backend, creating(request, caller.project_id, key), "wh", create)
    webhook = Webhook.model_validate_json(bytes(response.body))
    secret = endpoints.current_secret(backend, caller.project_id, webhook.id)
    shown = WebhookWithSecret(webhook=webhook, signing_secret=secret)
    headers = {name: value for name, value in response.headers.items() if name not in _OF_THE_BODY}
    return Response(shown.model_dump_json(), response.status_code, headers, "application/json")


@router.get("/webhooks", responses=problems(422, 503))
def list_webhooks(
    backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Webhook]:
    """List the webhooks, newest first."""
    page = endpoints.list_page(backend, caller.project_id, limit=limit, cursor=cursor)
    return Page[Webhook].model_validate(page)


@router.get("/webhooks/{webhook_id}", responses=problems(404, 503))
def get_webhook(webhook_id: WebhookId, backend: BackendDep, caller: CallerDep) -> Webhook:
    """Get one webhook."""
    return Webhook.model_validate(endpoints.get(backend, caller.project_id, webhook_id))


@router.patch("/webhooks/{webhook_id}", responses=problems(400, 404, 413, 415, 422, 503))
@in_lane(Lane.WEBHOOKS)
def patch_webhook(webhook_id: WebhookId, body: WebhookPatch, backend: BackendDep, caller: CallerDep) -> Webhook:
    """Change a webhook. One that is enabled again gets the events that wait for it."""
    changes = body.model_dump(exclude_none=True)
    return Webhook.model_validate(endpoints.patch(backend, caller.project_id, webhook_id, changes))


@router.delete("/webhooks/{webhook_id}", status_code=204, responses=problems(404, 503))
def delete_webhook(webhook_id: WebhookId, backend: BackendDep, caller: CallerDep) -> None:
    """Delete a webhook with its log and all that waits for it."""
    endpoints.delete(backend, caller.project_id, webhook_id)


@router.post("/webhooks/{webhook_id}/ping", responses=problems(400, 404, 413, 415, 422, 503))
@in_lane(Lane.WEBHOOKS)
def ping_webhook(webhook_id: WebhookId, body: Ping, backend: BackendDep, caller: CallerDep) -> PingResult:
    """Send a sample event now, and say how it was taken."""
    outcome = delivery.ping(backend, caller.project_id, webhook_id, body.event_type)
    return PingResult.model_validate(outcome)


@router.post("/webhooks/{webhook_id}/rotate", responses=problems(400, 404, 413, 415, 422, 503))
def rotate_webhook_secret(
    webhook_id: WebhookId, body: WebhookRotation, backend: BackendDep, caller: CallerDep
) -> WebhookWithSecret:
    """Give the webhook a new signing secret, shown in this answer only."""
    made = endpoints.rotate(backend, caller.project_id, webhook_id, keeps_previous=body.keeps_previous)
    return _with_secret(made)


@router.get("/webhooks/{webhook_id}/deliveries", responses=problems(404, 422, 503))
def list_webhook_deliveries(
    webhook_id: WebhookId, backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Delivery]:
    """List what went to the webhook in the last week, or waits to, newest first."""
    page = endpoints.list_deliveries(backend, caller.project_id, webhook_id, limit=limit, cursor=cursor)
    return Page[Delivery].model_validate(page)


def _with_secret(made: NewSecret) -> WebhookWithSecret:
    return WebhookWithSecret(webhook=Webhook.model_validate(made.endpoint), signing_secret=made.secret)
