"""Schemas of `/generations`; the request is in `core.domain.judging.generations`."""

from datetime import datetime
from typing import Any

from pydantic import Field

from api.schemas.base import Answer, Id
from core.domain.judging.generations import WorkStatus


class GenerationFailure(Answer):
    """A prompt that a model could not answer."""

    model: str = Field(description="The model.")
    prompt: int = Field(description="Place of the prompt among those of the generation, from 0.")
    detail: str = Field(description="Why.")


class Generation(Answer):
    """Answers of models to prompts, which become a dataset of kind `responses`."""

    id: Id
    name: str | None = Field(description="A name to recognise it by.")
    status: WorkStatus = Field(description="`succeeded`, `failed` and `cancelled` are final.")
    source: str | None = Field(description="Version of the dataset that the prompts are from, if any.")
    num_prompts: int = Field(description="Different prompts.")
    num_answers: int = Field(description="Answers wanted: models × prompts × samples.")
    num_done: int = Field(description="Answers that are done; they come in parts of 64 at most.")
    num_failed: int = Field(description="Those of them that a model could not give; they make no row.")
    num_tokens: int = Field(description="Tokens generated, with those that end a turn.")
    failures: list[GenerationFailure] = Field(description="The first 20 failed answers.")
    error: str | None = Field(description="Why it failed; else null.")
    dataset_id: str | None = Field(description="The dataset of responses, once it has succeeded.")
    is_held: bool = Field(description="Its rounds are paused: it goes on with them.")
    requested: dict[str, Any] = Field(description="The request, without listed prompts.")
    metadata: dict[str, str] = Field(description="Strings of yours.")
    created_at: datetime = Field(description="RFC 3339, UTC.")
    finished_at: datetime | None = Field(description="When it ended, RFC 3339, UTC; null before.")
