"""`chat_template_kwargs` in a query: a JSON object in one parameter, under the rules of the job's field."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from api.http.problems import INVALID_REQUEST, HttpError
from api.http.strict_json import parse, summary
from api.http.validation_messages import field_errors
from core.domain.errors import FieldError
from core.domain.jobs.job_spec import TemplateKwargs

POINTER = "/chat_template_kwargs"
_FORM: TypeAdapter[dict[str, Any]] = TypeAdapter(TemplateKwargs)


def parse_template_kwargs(text: str) -> dict[str, Any]:
    """Parse the parameter; raises HttpError naming every fault."""
    try:
        value = parse(text.encode())
        return _FORM.validate_python(value)
    except HttpError as error:
        inner = error.fault.errors or [FieldError("", 'must be a JSON object, such as {"enable_thinking": false}')]
    except ValidationError as error:
        inner = field_errors(error.errors(include_url=False), value)
    errors = [FieldError(POINTER + fault.pointer, fault.detail) for fault in inner]
    raise HttpError(INVALID_REQUEST, summary(errors), errors=errors)
