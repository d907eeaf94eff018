"""Numbers in requests: JSON numbers only, and nothing that could be read as one.

`true` is no number and neither is `"3"`; `3.0` is a whole one, as JSON Schema has it.
"""

from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError


def _refuse_others_than_whole(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticKnownError("int_type")
    return value


def _refuse_others_than_real(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticKnownError("float_type")
    return value


MAX_WHOLE = 2**53 - 1
"""The largest whole number that every reader of JSON holds exactly."""
WHOLE = BeforeValidator(_refuse_others_than_whole)
REAL = BeforeValidator(_refuse_others_than_real)
