"""Normalised rows as Arrow columns, with the types that the rows of the dataset have.

A text is a string, messages are a list of structs with the fields that any message has. What may be any JSON value
(arguments of tool calls, tools, documents) is its JSON text, which an upload of the export reads back.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pyarrow as pa

BATCH_BYTES: Final = 2 * 1024 * 1024
"""JSON of the rows that are made into one record batch, at most."""
_SIDES: Final = ("prompt", "chosen", "rejected", "response")
_BEGIN = re.compile(rb'"(prompt|chosen|rejected|response)":(\[|")')
_AS_JSON: Final = ("tools", "documents")
_KEYS: Final = ("tool_calls", "reasoning_content", "train", "tool_call_id", "name", "label", "model", *_AS_JSON)
_PATTERNS: Final = {name: f'"{name}":'.encode() for name in _KEYS}
_CALL: Final = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),
    ]
)
_OPTIONAL: Final = {
    "reasoning_content": pa.string(),
    "tool_calls": pa.list_(_CALL),
    "tool_call_id": pa.string(),
    "name": pa.string(),
    "train": pa.bool_(),
}


class MixedRows(Exception):
    """Some rows are texts and others messages, which no column can hold."""


@dataclass(frozen=True, kw_only=True)
class RowTypes:
    """Types of the rows of a dataset, found by one look at all of them."""

    schema: pa.Schema
    has_messages: bool
    num_rows: int
    num_bytes: int


def find_types(lines: Iterable[bytes]) -> RowTypes:
    """Return the types of normalised rows. Raises MixedRows."""
    keys, sides = set[str](), set[bytes]()
    is_messages = set[bool]()
    num_rows = num_bytes = 0
    for line in lines:
        num_rows += 1
        num_bytes += len(line)
        if (begin := _BEGIN.search(line)) is not None:
            is_messages.add(begin[2] == b"[")
        if num_rows == 1:
            sides = {found[1] for found in _BEGIN.finditer(line)}
        keys.update(name for name, pattern in _PATTERNS.items() if name not in keys and pattern in line)
    if len(is_messages) > 1:
        raise MixedRows
    has_messages = True in is_messages
    return RowTypes(
        schema=_schema(keys, {side.decode() for side in sides}, has_messages=has_messages),
        has_messages=has_messages,
        num_rows=num_rows,
        num_bytes=num_bytes,
    )


def _schema(keys: set[str], sides: set[str], *, has_messages: bool) -> pa.Schema:
    message = pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.string()),
            *((name, kind) for name, kind in _OPTIONAL.items() if name in keys),
        ]
    )
    text = pa.list_(message) if has_messages else pa.string()
    fields = [pa.field("line", pa.int64()), *(pa.field(side, text) for side in _SIDES if side in sides)]
    if "label" in keys and "response" in sides:
        fields.append(pa.field("label", pa.bool_()))
    if "model" in keys and "response" in sides:
        fields.append(pa.field("model", pa.string()))
    fields += [pa.field(name, pa.string()) for name in _AS_JSON if name in keys]
    return pa.schema(fields)


def to_batches(lines: Iterable[bytes], types: RowTypes, max_bytes: int = BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """Yield the rows as record batches of at most `max_bytes` of JSON, or of one row."""
    rows: list[dict[str, Any]] = []
    size = 0
    for line in lines:
        if rows and size + len(line) > max_bytes:
            yield pa.RecordBatch.from_pylist(rows, schema=types.schema)
            rows, size = [], 0
        rows.append(_row(orjson.loads(line), types))
        size += len(line)
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=types.schema)


def _row(row: dict[str, Any], types: RowTypes) -> dict[str, Any]:
    if types.has_messages:
        messages = (message for side in _SIDES for message in row.get(side, ()))
        for call in (call for message in messages for call in message.get("tool_calls", ())):
            call["function"]["arguments"] = orjson.dumps(call["function"]["arguments"]).decode()
    for name in _AS_JSON:
        if name in row:
            row[name] = orjson.dumps(row[name]).decode()
    return row
