"""Validation messages: pydantic's errors as a JSON pointer and one plain sentence for each field.

A field that takes one of several types gives one error for each; they are folded into one: `must be a number of at
most 1, or "auto", not "abc"`.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from api.http.known_fields import known_fields
from api.http.strict_json import pointer_part
from core.domain.errors import FieldError
from core.wording import did_you_mean

MAX_SHOWN_CHARS = 60
MAX_SUGGESTED = 100
"""Faults for whose unknown field a known one is looked for: a body has room for tens of thousands."""


@dataclass(frozen=True)
class _Finding:
    pointer: str
    expected: str
    """The tail of "must …"."""
    given: Any
    is_close: bool = False
    """The type is right and the value is not: more telling than the other types the field takes."""
    sentence: str | None = None
    """Replaces "must …, not …"."""


Context = dict[str, Any]
_PATTERNS: dict[str, str] = {
    "^[^": "hold no control characters",
    "^[\\": "be made of printable ASCII characters, without spaces",
}
"""Messages by the beginning of the pattern: those of names and texts exclude characters, those of keys list them."""
_SORTS = re.compile(r"\^-\?\((\w+(?:\|\w+)*)\)\$")


def _pattern(pattern: str) -> str:
    """Return what a text of this pattern is like."""
    if sorts := _SORTS.fullmatch(pattern):
        return f"be {', '.join(sorts[1].split('|'))}, with `-` before it for the largest first"
    return _PATTERNS.get(pattern[:3], f"match the pattern {pattern}")


_EXPECTED: dict[str, Callable[[Context], str]] = {
    "missing": lambda _: "be given",
    "string_type": lambda _: "be a text",
    "int_type": lambda _: "be a whole number",
    "int_parsing": lambda _: "be a whole number",
    "int_parsing_size": lambda _: "be a smaller whole number",
    "int_from_float": lambda _: "be a whole number",
    "float_type": lambda _: "be a number",
    "float_parsing": lambda _: "be a number",
    "bool_type": lambda _: "be true or false",
    "bool_parsing": lambda _: "be true or false",
    "dict_type": lambda _: "be an object",
    "model_type": lambda _: "be an object",
    "model_attributes_type": lambda _: "be an object",
    "list_type": lambda _: "be a list",
    "none_required": lambda _: "be null",
    "literal_error": lambda c: f"be {_quoted_choices(c['expected'])}",
    "enum": lambda c: f"be {_quoted_choices(c['expected'])}",
    "finite_number": lambda _: "be a finite number",
    "greater_than": lambda c: f"be greater than {c['gt']:g}",
    "greater_than_equal": lambda c: f"be at least {c['ge']:g}",
    "less_than": lambda c: f"be less than {c['lt']:g}",
    "less_than_equal": lambda c: f"be at most {c['le']:g}",
    "too_long": lambda c: f"have at most {c['max_length']} entries",
    "string_too_long": lambda c: f"have at most {c['max_length']} characters",
    "string_pattern_mismatch": lambda c: _pattern(c["pattern"]),
    "extra_forbidden": lambda _: "not be there",
}
_CLOSE = frozenset(
    {
        "finite_number",
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "too_long",
        "string_too_long",
        "string_too_short",
        "string_pattern_mismatch",
        "int_from_float",
    }
)


def field_errors(errors: Sequence[Any], payload: Any, annotation: Any = None) -> list[FieldError]:
    """Convert pydantic's errors about `payload` to one for each field; `annotation`: the payload's type, if known."""
    found: dict[str, list[_Finding]] = {}
    outer: set[str] = set()
    for number, error in enumerate(errors):
        finding = _finding(error, payload, annotation if number < MAX_SUGGESTED else None)
        found.setdefault(finding.pointer, []).append(finding)
        place = finding.pointer
        while place and (place := place.rpartition("/")[0]) not in outer:
            outer.add(place)
    folded = []
    for pointer, mine in found.items():
        # An object that fails inside also fails as every other type the field takes: only what is inside counts.
        if pointer in outer and all(isinstance(finding.given, dict | list) for finding in mine):
            continue
        folded.append(FieldError(pointer, _sentence(mine)))
    return folded


def _finding(error: Any, payload: Any, annotation: Any) -> _Finding:
    kind, context = error["type"], error.get("ctx") or {}
    pointer, given, exists = _locate(error["loc"], payload, kind)
    if kind == "value_error":
        return _Finding(pointer, "", given, sentence=str(context.get("error", "is not valid")))
    if kind == "missing":
        return _Finding(pointer, "", None, sentence="is required")
    if kind == "extra_forbidden":
        meant = did_you_mean(str(error["loc"][-1]), known_fields(annotation, error["loc"])).strip()
        return _Finding(pointer, "", given, sentence=f"is an unknown field; {meant or 'check its spelling'}")
    if kind == "string_too_short":
        return _Finding(pointer, "not be empty", given, is_close=True, sentence="must not be empty")
    expected = _EXPECTED[kind](context) if kind in _EXPECTED else "be valid: " + str(error["msg"]).lower()
    return _Finding(pointer, expected, given if exists else error.get("input"), is_close=kind in _CLOSE)


def _locate(loc: Sequence[Any], payload: Any, kind: str) -> tuple[str, Any, bool]:
    """Return the pointer of a pydantic location, without types of a union."""
    pointer, value, exists = "", payload, True
    for position, part in enumerate(loc):
        is_last = position == len(loc) - 1
        is_index = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if is_index or (isinstance(value, dict) and part in value):
            pointer, value = pointer + pointer_part(part), value[part]
        elif is_last and kind == "missing":
            pointer, value, exists = pointer + pointer_part(part), None, False
    return pointer, value, exists


def _sentence(findings: list[_Finding]) -> str:
    for finding in findings:
        if finding.sentence is not None:
            return finding.sentence
    if any(finding.is_close for finding in findings):
        findings = [finding for finding in findings if finding.is_close or finding.expected.startswith('be "')]
    expected = list(dict.fromkeys(finding.expected for finding in findings))
    tails = [expected[0], *(text.removeprefix("be ") for text in expected[1:])]
    return f"must {' or '.join(tails)}, not {shown(findings[0].given)}"


def shown(value: Any) -> str:
    """Return a value of the user's, short and printable."""
    text = json.dumps(value, default=str)
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def _quoted_choices(expected: str) -> str:
    return expected.replace("'", '"')
