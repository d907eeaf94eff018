"""Schemas of `/audit`."""

from datetime import datetime
from typing import Any

from pydantic import Field

from api.schemas.base import Answer, Id


class AuditEvent(Answer):
    """One act of somebody, written in the transaction of what it records and never changed."""

    id: Id
    created_at: datetime = Field(description="When, by the database's clock.")
    project_id: str | None = Field(description="Whose object it was; null for the deployment's.")
    actor: str = Field(description="A key's id, the user a proxy vouched for, or `operator:<user>` of a command.")
    key_id: str | None = Field(description="The key that was shown; null where none was.")
    address: str | None = Field(description="Of the client, behind trusted proxies too; `local` for commands.")
    request_id: str | None = Field(description="As in the log and the answer's `X-Request-ID`.")
    action: str = Field(description="What was done, such as `job.submit`.")
    object_id: str | None = Field(description="What it was done to; of a refused request its method and path.")
    outcome: str = Field(description="`done` or `refused`.")
    detail: dict[str, Any] = Field(description="More, by action.")
