"""JSON bodies, parsed more strictly than usual, with a pointer to whatever is refused.

Python's parser takes NaN, infinities, a key that stands twice, and halves of surrogate pairs; the databases behind
this service take none of them, nor a NUL character.
"""

import json
import math
from typing import Any

from api.http.problems import INVALID_REQUEST, MALFORMED_JSON, HttpError
from core.domain.errors import FieldError

MAX_DEPTH = 32
MAX_NUMBER_CHARS = 64
MAX_FAULTS = 100


class _Repeated(Exception):
    pass


class _TooLong(Exception):
    pass


def parse(body: bytes) -> Any:
    """Parse a JSON text. Raises HttpError: 400 for what is not JSON, 422 for values that no field can take."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise HttpError(MALFORMED_JSON, f"The body is not UTF-8: byte {error.start} is no character.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise HttpError(MALFORMED_JSON, f"The body is not JSON: {error.msg} at {where}.") from None
    except _Repeated as error:
        detail = f"The key {error} stands twice in one object; keep one of the two."
        raise HttpError(INVALID_REQUEST, detail, errors=[FieldError("", detail)]) from None
    except _TooLong:
        detail = f"A number has more than {MAX_NUMBER_CHARS} digits."
        raise HttpError(INVALID_REQUEST, detail, errors=[FieldError("", detail)]) from None
    except RecursionError:
        raise _too_deep() from None
    faults = list_faults(value)
    if faults:
        raise HttpError(INVALID_REQUEST, summary(faults), errors=faults)
    return value


def list_faults(value: Any) -> list[FieldError]:
    """Return numbers and texts that the service cannot store, each with its pointer."""
    faults: list[FieldError] = []
    _collect(value, "", 0, faults)
    return faults


def text_fault(text: str) -> str | None:
    """Return why this text is refused wherever it stands, or None."""
    if "\x00" in text:
        return "must not hold a NUL character (\\u0000)"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "holds half of a surrogate pair; write the whole character"
    return None


def pointer_part(part: str | int) -> str:
    """Return one step of a JSON pointer (RFC 6901), printable whatever the key holds."""
    text = str(part).replace("~", "~0").replace("/", "~1")
    return "/" + text.encode("utf-8", "replace").decode().replace("\x00", "\\u0000")


def summary(errors: list[FieldError]) -> str:
    """Return one sentence for people who read only `detail`."""
    first = errors[0]
    where = f"{first.pointer}: " if first.pointer else ""
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}{first.detail}{more}"


def _collect(value: Any, pointer: str, depth: int, faults: list[FieldError]) -> None:
    if depth > MAX_DEPTH:
        raise _too_deep()
    if len(faults) >= MAX_FAULTS:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if fault := text_fault(key):
                faults.append(FieldError(pointer + pointer_part(key), f"the key {fault}"))
            _collect(item, pointer + pointer_part(key), depth + 1, faults)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _collect(item, pointer + pointer_part(index), depth + 1, faults)
    elif isinstance(value, float) and not math.isfinite(value):
        faults.append(FieldError(pointer, "must be a finite number; JSON knows no NaN and no infinity"))
    elif isinstance(value, str) and (fault := text_fault(value)):
        faults.append(FieldError(pointer, fault))


def _too_deep() -> HttpError:
    detail = f"The body is nested more than {MAX_DEPTH} deep."
    return HttpError(INVALID_REQUEST, detail, errors=[FieldError("", detail)])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Repeated(next(ascii(key) for key in keys if keys.count(key) > 1))
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_NUMBER_CHARS:
        raise _TooLong
    return int(digits)
