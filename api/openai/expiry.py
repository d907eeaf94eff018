"""When a file is to go: `expires_after`, as a form and as JSON."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from api.http.problems import INVALID_REQUEST, HttpError
from api.http.strict_json import summary
from api.http.validation_messages import field_errors
from core.domain.errors import FieldError
from core.domain.jobs.job_spec import Payload
from core.domain.json_numbers import WHOLE

MIN_SECONDS, MAX_SECONDS = 3600, 30 * 24 * 3600
FORM_FIELDS: Final = {"expires_after[anchor]": "anchor", "expires_after[seconds]": "seconds"}
"""Names in a form, as the clients write them -> names of `ExpiresAfter`."""


class ExpiresAfter(Payload):
    """How long a file stays from its creation on."""

    anchor: Literal["created_at"] = Field(description="Where the time begins.")
    seconds: Annotated[int, Field(ge=MIN_SECONDS, le=MAX_SECONDS), WHOLE] = Field(
        description="From an hour to thirty days."
    )


def expiry_of_form(fields: Mapping[str, str]) -> int | None:
    """Return the seconds that the form asks for; None where it has no such field. Raises HttpError."""
    given = {name: fields[field] for field, name in FORM_FIELDS.items() if field in fields}
    if not given:
        return None
    values = {
        name: int(text) if text.isascii() and text.isdigit() and len(text) < 18 else text
        for name, text in given.items()
    }
    try:
        return ExpiresAfter.model_validate(values).seconds
    except ValidationError as error:
        faults = field_errors(error.errors(include_url=False), values)
        errors = [FieldError(f"/expires_after{fault.pointer}", fault.detail) for fault in faults]
        raise HttpError(INVALID_REQUEST, summary(errors), errors=errors) from error
