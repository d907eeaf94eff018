"""Whole numbers of a job that every reader of JSON holds exactly: its seed, and lines of a file."""

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import PydanticKnownError

from core.domain.json_numbers import MAX_WHOLE, WHOLE

STORED = {"is_stored": True}
"""Context in which a request is read that an earlier version accepted, with a seed below 2**63."""


def _fits_every_reader(seed: int, info: ValidationInfo) -> int:
    if seed > MAX_WHOLE and info.context is not STORED:
        raise PydanticKnownError("less_than_equal", {"le": MAX_WHOLE})
    return seed


Seed = Annotated[int, Field(ge=0, json_schema_extra={"maximum": MAX_WHOLE}), WHOLE, AfterValidator(_fits_every_reader)]

Lines = Annotated[list[Annotated[int, Field(ge=1, le=MAX_WHOLE), WHOLE]], Field(max_length=100_000)]
"""Lines of an uploaded file."""

Nodes = Annotated[
    int,
    Field(
        ge=1,
        le=64,
        description="Workers that train it together, each with all of its devices; they start together or not at all. "
        "They are of one kind, and have an address in a private network (`PREFTUNE_NODE_ADDRESS`).",
    ),
    WHOLE,
]
