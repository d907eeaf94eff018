"""Options of an upload, parsed from texts of a form or of the query."""

from typing import Any

from pydantic import ValidationError

from api.http.problems import INVALID_REQUEST, HttpError
from api.http.strict_json import parse, pointer_part, summary, text_fault
from api.http.validation_messages import field_errors
from api.schemas.datasets import DatasetOptions
from core.domain.errors import FieldError

JSON_OPTIONS = {
    "columns": 'object, such as {"prompt": "question"}',
    "metadata": 'object, such as {"owner": "me"}',
    "values": 'object, such as {"0": "first", "1": "second"}',
    "ignore": 'list, such as ["weight"]',
}
"""Options that are JSON -> what they must be."""


def parse_options(texts: dict[str, str]) -> DatasetOptions:
    """Parse the options; raises HttpError naming every fault. An empty text counts as absent, as forms send it."""
    errors: list[FieldError] = []
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if text:
            values[name] = _value(name, text, errors)
    if not errors:
        try:
            return DatasetOptions.model_validate(values)
        except ValidationError as error:
            errors = field_errors(error.errors(include_url=False), values, DatasetOptions)
    raise HttpError(INVALID_REQUEST, summary(errors), errors=errors)


def _value(name: str, text: str, errors: list[FieldError]) -> Any:
    pointer = pointer_part(name)
    if fault := text_fault(text):
        errors.append(FieldError(pointer, fault))
    elif name in JSON_OPTIONS:
        return _json(name, text, errors)
    return text


def _json(name: str, text: str, errors: list[FieldError]) -> Any:
    try:
        return parse(text.encode())
    except HttpError as error:
        inner = error.fault.errors or [FieldError("", f"must be a JSON {JSON_OPTIONS[name]}")]
        pointer = pointer_part(name)
        errors += [FieldError(pointer + fault.pointer, fault.detail) for fault in inner]
        return None
