"""Schemas of `/jobs/{id}/exports`."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.base import Answer, Id
from core.domain.exports import ExportFormat
from core.domain.request_status import RequestStatus


class ExportRequest(BaseModel):
    """Format to which the policy is converted."""

    model_config = ConfigDict(extra="forbid")

    format: ExportFormat = Field(description="GGUF, for llama.cpp: weights as 16-bit floats, or as 8-bit integers.")


class Verification(Answer):
    """Result of reading the file with llama.cpp: the same tokens of a text, and nearly the same numbers."""

    num_tokens: int = Field(description="Tokens compared with the policy.")
    mean_difference: float = Field(description="Of a token's log-probability, in nats.")
    max_difference: float = Field(description="The largest, in nats.")
    tolerance: float = Field(description="Of the mean, in nats: a file that is further off is not published.")
    context_length: int | None = Field(
        default=None,
        description="Tokens up to which the file is the policy: a sliding window's, which llama.cpp lacks.",
    )
    end_token_ids: list[int] | None = Field(
        default=None, description="Where llama.cpp stops, of the tokens at which the policy does."
    )


class Export(Answer):
    id: Id
    job_id: Id
    format: ExportFormat = Field(description="As asked for.")
    status: RequestStatus = Field(description="Where the request is.")
    path: str | None = Field(description="Among the files of the artifact, once succeeded.")
    url: str | None = Field(description="Where it is downloaded, once succeeded; ranges are honoured.")
    verification: Verification | None = Field(description="How it was read back, once succeeded.")
    error: str | None = Field(description="Why it failed; null unless it has.")
    created_at: datetime = Field(description="RFC 3339, UTC.")
    finished_at: datetime | None = Field(description="RFC 3339, UTC; null before.")


class Exports(Answer):
    data: list[Export] = Field(description="Newest first.")
