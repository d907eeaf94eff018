"""Schemas of `/jobs/{id}/republish`."""

from datetime import datetime

from pydantic import Field

from api.schemas.base import Answer, Id
from core.domain.request_status import RequestStatus


class RepublishOutcome(Answer):
    """What has changed."""

    manifest_sha256_before: str = Field(description="`manifest_sha256` of the artifact that was replaced.")
    manifest_sha256: str = Field(description="Of the artifact now.")
    weights_dtype: str = Field(description="Type of the published weights now.")
    num_exports_removed: int = Field(description="Exports that were made of the old weights; ask for them again.")


class Republication(Answer):
    """A request to merge adapter and base model again."""

    id: Id
    job_id: Id
    status: RequestStatus = Field(description="Where the request is.")
    outcome: RepublishOutcome | None = Field(description="What has changed, once succeeded.")
    error: str | None = Field(description="Why it failed; null unless it has. The old artifact is then still there.")
    created_at: datetime = Field(description="RFC 3339, UTC.")
    finished_at: datetime | None = Field(description="RFC 3339, UTC; null before.")
