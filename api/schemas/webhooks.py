"""Request and response models of `/webhooks`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api.schemas.base import Answer, Id
from core.domain.jobs.job_spec import Name, Payload

WebhookUrl = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
DeliveryStatus = Literal["pending", "delivered", "given_up"]
EventTypes = Annotated[list[Name], Field(min_length=1, max_length=16)]


class NewWebhook(Payload):
    """Body of `POST /webhooks`."""

    url: WebhookUrl = Field(description="Receiver's https address, public or listed by the operator.")
    event_types: EventTypes = Field(
        description="Which events: `fine_tuning.job.succeeded`, `.failed`, `.cancelled`, `.paused`."
    )
    name: Name | None = Field(None, description="A name to recognise it by; default: the URL.")


class WebhookPatch(Payload):
    """Body of `PATCH /webhooks/{id}`; what is left out stays."""

    url: WebhookUrl | None = Field(None, description="Another address.")
    event_types: EventTypes | None = Field(None, description="All events that go to it.")
    name: Name | None = Field(None, description="A name to recognise it by.")
    is_enabled: bool | None = Field(None, strict=True, description="true: events go to it again.")


class Ping(Payload):
    """Body of `POST /webhooks/{id}/ping`."""

    event_type: Name = Field("fine_tuning.job.succeeded", description="Type of the sample event.")


class WebhookRotation(Payload):
    """Body of `POST /webhooks/{id}/rotate`."""

    keeps_previous: bool = Field(
        True, strict=True, description="The previous secret signs for another day beside the new one."
    )


class Webhook(Answer):
    """An endpoint that events go to."""

    id: Id
    name: str = Field(description="A name to recognise it by.")
    url: str = Field(description="Receiver's address.")
    event_types: list[str] = Field(description="Which events go to it.")
    is_enabled: bool = Field(description="Whether events go to it.")
    disabled_reason: str | None = Field(description="Why not.")
    secret_hint: str = Field(description="The end of its signing secret.")
    num_failures: int = Field(description="Failed tries in a row.")
    created_at: datetime = Field(description="When it was made.")
    updated_at: datetime = Field(description="When it was changed last.")


class WebhookWithSecret(Answer):
    """An endpoint with its signing secret, which is shown this once."""

    webhook: Webhook = Field(description="The endpoint.")
    signing_secret: str = Field(description="`whsec_…`, as Standard Webhooks has it: receivers check events with it.")


class PingResult(Answer):
    """How the receiver took a sample event."""

    is_delivered: bool = Field(description="Whether it answered 2xx.")
    status: int | None = Field(description="HTTP status of its answer; null where none came.")
    error: str | None = Field(description="What went wrong.")


class Delivery(Answer):
    """One event on its way to an endpoint, or there."""

    id: Id
    type: str = Field(description="Of the event.")
    job_id: str = Field(description="Job that it tells of.")
    status: DeliveryStatus = Field(description="Where it stands.")
    num_tries: int = Field(description="Tries so far.")
    last_status: int | None = Field(description="HTTP status of the last try; null where no answer came.")
    last_error: str | None = Field(description="What went wrong at the last try.")
    created_at: datetime = Field(description="When the job moved.")
    next_try_at: datetime | None = Field(description="When it is tried next; null once it is not.")
    delivered_at: datetime | None = Field(description="When it was taken.")
