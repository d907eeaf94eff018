"""Schemas of `/keys`."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from api.schemas.base import Answer, Id
from core.domain.access import Scope
from core.domain.jobs.job_spec import Payload

KeyName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
MAX_SECONDS = 10 * 365 * 24 * 3600.0


class NewKey(Payload):
    """A key to be made."""

    name: KeyName = Field(description="A name to recognise it by: who or what will hold it.", examples=["ci"])
    scope: Scope = Field(Scope.WRITE, description="What it may; from `write` on each scope includes all before it.")
    keeps_answers: bool = Field(
        False, description="Whether answers to requests with `store: true` are kept for feedback; admins may always."
    )
    project_id: str | None = Field(
        None, max_length=64, description="Whose; others than the caller's own are for operators."
    )
    expires_in_seconds: Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None = Field(
        None, description="Seconds that it works; none: until it is revoked."
    )


class KeyRotation(Payload):
    """How the old key ends."""

    grace_seconds: Annotated[float, Field(ge=0, le=30 * 24 * 3600.0)] = Field(
        24 * 3600.0, description="Seconds that the old key works on, never longer than it would have."
    )


class Key(Answer):
    """A key, without its secret."""

    id: Id
    project_id: Id
    name: str = Field(description="A name to recognise it by.")
    scope: Scope = Field(description="What it may.")
    keeps_answers: bool = Field(description="Whether answers to requests with `store: true` are kept for feedback.")
    is_live: bool = Field(description="Neither revoked nor expired.")
    created_at: datetime = Field(description="When it was made.")
    expires_at: datetime | None = Field(description="When it ends; null: when it is revoked.")
    revoked_at: datetime | None = Field(description="When it was revoked.")
    last_used_at: datetime | None = Field(description="When it was used last, to the minute.")


class CreatedKey(Key):
    """A key with its secret, which is shown once."""

    token: str | None = Field(
        description="What to send as `Authorization: Bearer <token>`. Null where a request is answered again: the "
        "secret is not kept."
    )
