"""Parsing of one JSON value to a row, stricter than JSON parsers and with precise errors.

orjson refuses NaN, infinities, lone surrogates, bad UTF-8, raw control characters and nesting beyond 1,024; it keeps
the last of two equal keys, which is checked for here.
"""

import json
import re
from collections.abc import Collection
from typing import Final

import orjson

from core.datasets.faults import RowFault, quoted
from core.datasets.messages.messages import type_name
from core.datasets.options import Limits
from core.domain.issue_codes import IssueCode

_BAD_NUMBER = re.compile(rb"[:\[,]\s*-?(NaN|Infinity|nan|inf)\b")
_SEVERAL_OBJECTS = re.compile(rb"\}\s*\{")
_NESTED: Final = (dict, list)


def parse_row(text: bytes, limits: Limits) -> dict[str, object]:
    """Parse one line to a row; raises RowFault."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise explain(text, error, limits) from None
    if type(value) is not dict:
        raise RowFault(
            IssueCode.NOT_AN_OBJECT,
            f"The row is {type_name(value)}; expected an object with named fields, such as "
            '{"prompt": …, "chosen": …, "rejected": …}.',
        )
    num_strings = check_shape(value, limits)
    if num_strings_in(text) != num_strings and (key := _duplicate_key(text)) is not None:
        raise RowFault(
            IssueCode.DUPLICATE_KEY, f"The key {quoted(key)} stands twice in one object; which one counts is unclear."
        )
    return value


def parse_value(text: bytes, limits: Limits) -> object:
    """Parse any JSON value, such as that of a cell, under the same rules as a row. Raises RowFault."""
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise explain(text, error, limits) from None
    num_strings = check_shape({"": value}, limits) - 1
    if num_strings_in(text) != num_strings and (key := _duplicate_key(text)) is not None:
        raise RowFault(IssueCode.DUPLICATE_KEY, f"The key {quoted(key)} stands twice in one object.")
    return value


def check_shape(row: dict[str, object], limits: Limits) -> int:
    """Return the number of strings in the row, keys and values together.

    Raises:
        RowFault: an object has too many keys, or the row is nested too deeply.
    """
    num_strings = len(row)
    _check_num_keys(num_strings, limits)
    level: list[object] = []
    for value in row.values():
        if type(value) is str:
            num_strings += 1
        elif type(value) in _NESTED:
            level.append(value)
    depth = 1
    while level:
        depth += 1
        if depth > limits.max_depth:
            raise _too_deep(limits)
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                num_strings += len(value)
                _check_num_keys(len(value), limits)
            items = _items(value)
            num_strings += sum([type(item) is str for item in items])
            below += [item for item in items if type(item) in _NESTED]
        level = below
    return num_strings


def _items(value: object) -> Collection[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _too_deep(limits: Limits) -> RowFault:
    return RowFault(IssueCode.TOO_DEEP, f"The row is nested more than {limits.max_depth} levels deep; flatten it.")


def _check_num_keys(num_keys: int, limits: Limits) -> None:
    if num_keys > limits.max_keys:
        raise RowFault(
            IssueCode.TOO_MANY_KEYS, f"An object of the row has {num_keys:,} keys; {limits.max_keys} are allowed."
        )


def num_strings_in(text: bytes) -> int:
    """Count strings in valid JSON: two unescaped quotes each.

    Backslashes stand in strings only, and are read from the left: without the pairs, one before a quote escapes it.
    More strings than were read mean that of two equal keys one was dropped.
    """
    num_quotes = text.count(b'"')
    if b"\\" in text:
        if b"\\\\" in text:
            text = text.replace(b"\\\\", b"")
        num_quotes -= text.count(b'\\"')
    return num_quotes // 2


class _DuplicateKey(Exception):
    pass


def _duplicate_key(text: bytes) -> str | None:
    """Return the name of a key that occurs twice."""

    def check(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)

    try:
        json.loads(text, object_pairs_hook=check, parse_int=float)
    except _DuplicateKey as duplicate:
        return str(duplicate)
    return None


def explain(text: bytes, error: orjson.JSONDecodeError, limits: Limits) -> RowFault:
    """Describe the fault to the person who made the file; nothing of the text is repeated."""
    try:
        text.decode()
    except UnicodeDecodeError as bad:
        return RowFault(
            IssueCode.NOT_UTF8,
            f"The line is not UTF-8: byte 0x{text[bad.start]:02X} at position {bad.start + 1}. Save the file as UTF-8.",
        )
    message = error.msg.partition(": line ")[0]
    if "surrogate" in message:
        return RowFault(
            IssueCode.LONE_SURROGATE,
            "A text holds half of a surrogate pair (an escape from \\ud800 to \\udfff without its other half).",
        )
    if "depth limit" in message:
        return _too_deep(limits)
    return RowFault(IssueCode.INVALID_JSON, f"Not JSON at character {error.pos + 1}: {_hint(text.strip(), message)}.")


def _hint(text: bytes, message: str) -> str:
    lead = text[:2]
    if lead in (b"//", b"/*") or lead[:1] == b"#":
        return "JSON has no comments; remove the line"
    if text[:1] == b"<":
        return "this looks like a web page, not like data"
    if lead == b"{'":
        return "this looks like a Python dictionary; write it with json.dumps, which uses double quotes"
    if text[:1] == b"{" and b'\\\\"' in text:
        return "backslashes stand twice, as PostgreSQL's COPY writes them; export with psql -At, or COPY … (FORMAT csv)"
    if text[:1] not in b"{[" and (b"," in text or b"\t" in text or b";" in text):
        return "each line must be an object; CSV and TSV begin with a line that names the columns (sqlite3 -header)"
    if "end of data" in message or "unexpected end" in message:
        return "the row ends too early: the file is cut off, or the object spread over several lines"
    if _BAD_NUMBER.search(text):
        return "NaN and infinite numbers are not JSON; leave the field out, or write null"
    if "infinity" in message:
        return "a number is too large; leave the field out, or write it as a text in quotes"
    if "after document" in message or (_SEVERAL_OBJECTS.search(text) and "content after" in message):
        return "there is something after the end of the object; write one object a line"
    if "control character" in message:
        return "a raw control character stands inside a text; escape it (a tab is \\t, a line break \\n)"
    return message
