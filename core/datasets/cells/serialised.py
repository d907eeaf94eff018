"""Columns whose cells hold lists, messages or JSON as text: found by a sample, then parsed.

A table has nothing but texts, and exports of databases put JSON into texts as well. Whether `[{"role": …` is a text or
messages is told by the column, never by one cell: a cell of such a column that does not parse is malformed, and never
becomes a text among messages. In a column of texts, a text stays what it is.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

import orjson

from core.datasets.cells.json_rows import parse_value
from core.datasets.cells.notations import NotationError, parse_notation
from core.datasets.faults import Note, RowFault, quoted
from core.datasets.layouts.layout import SourceRow
from core.datasets.options import Limits
from core.domain.issue_codes import IssueCode

LIST_FIELDS: Final = frozenset((
    "messages", "conversations", "conversation", "conversation_a", "conversation_b", "chosen_messages",
    "rejected_messages", "history", "tools", "responses", "completions", "answers", "candidates", "scores", "ratings",
    "rewards", "ranks", "rankings", "ranking", "passages", "preferred_output", "non_preferred_output",
))  # fmt: skip
"""Fields that are a list in every layout that has them: there, a text that is a list is one."""
SPREADSHEET_CHARS: Final = 32_767
"""A spreadsheet cuts a cell after so many UTF-16 code units, without a word."""
_BEGIN = re.compile(r"\s*(?:array\()?[\[({]")
_KEY = re.compile(r"""['"{]\s*(?:role|from|messages|replies)['"]?\s*[:=]""")
_MESSAGE_KEYS: Final = ("role", "from", "messages", "replies")
_BRACKETS: Final = ("[", "{")
_DOUBLED: Final = '\\\\"'


@dataclass(frozen=True, kw_only=True)
class SerialisedColumns:
    """Serialised columns, under the layouts' names."""

    nested: frozenset[str] = frozenset()
    """Texts that are lists or objects."""
    quoted: frozenset[str] = frozenset()
    """Texts that are JSON strings, with their quotes and escapes."""

    def __bool__(self) -> bool:
        return bool(self.nested or self.quoted)


NOTHING_SERIALISED: Final = SerialisedColumns()


def find_serialised(rows: Sequence[SourceRow], limits: Limits) -> SerialisedColumns:
    """Find columns of which half the sampled cells begin as a list or messages, or all are JSON strings."""
    cells: dict[str, list[object]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None and value != "":
                cells.setdefault(name, []).append(value)
    quoted = frozenset(_quoted_columns(cells))
    for name in quoted:
        cells[name] = [orjson.loads(str(value)) for value in cells[name]]
    nested = {name for name, values in cells.items() if _are_nested(name, values, limits)}
    return SerialisedColumns(nested=frozenset(nested), quoted=quoted)


def deserialise(row: SourceRow, columns: SerialisedColumns, limits: Limits) -> SourceRow:
    """Return the row with the texts of such columns replaced by what they hold. Raises RowFault."""
    if not columns:
        return row
    found = dict(row)
    for name in columns.quoted & row.keys():
        found[name] = _read_quoted(name, row[name], limits)
    for name in columns.nested & row.keys():
        found[name] = _read_nested(name, found[name], limits)
    return found


def remarks(texts: Iterable[object], limits: Limits) -> list[Note]:
    """Remark on texts that are messages in a column of texts: they are trained on with their brackets."""
    found = (text for text in texts if isinstance(text, str) and text[:1] in _BRACKETS)
    if not any(holds_messages(text, limits) for text in found):
        return []
    detail = (
        "A text is a list of messages, as JSON or Python writes it; as the others of its column are plain, it is kept."
    )
    return [Note(IssueCode.MESSAGES_AS_TEXT, detail)]


def holds_messages(text: str, limits: Limits) -> bool:
    """Whether the text is messages, written in any of the notations."""
    if not (_BEGIN.match(text) and _KEY.search(text)):
        return False
    try:
        return _are_messages(_parse(text, limits))
    except (RowFault, NotationError):
        return False


def may_be_cut(text: object) -> bool:
    """Whether the text is exactly as long as the longest that a spreadsheet keeps."""
    if type(text) is not str or not SPREADSHEET_CHARS // 2 <= len(text) <= SPREADSHEET_CHARS:
        return False
    return len(text.encode("utf-16-le")) == 2 * SPREADSHEET_CHARS


def _are_nested(name: str, values: list[object], limits: Limits) -> bool:
    texts = [value for value in values if isinstance(value, str) or is_list_of_texts(value)]
    num_nested = sum(_looks_nested(name, text, limits) for text in texts)
    return num_nested > 0 and 2 * num_nested >= len(texts)


def _looks_nested(name: str, value: object, limits: Limits) -> bool:
    """Whether a cell begins as messages or a list, even if it was cut or cannot be parsed."""
    if not isinstance(value, str):
        return isinstance(value, list) and all(holds_messages(text, limits) for text in value)
    return _BEGIN.match(value) is not None and (name in LIST_FIELDS or _KEY.search(value) is not None)


def is_list_of_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _are_messages(value: object) -> bool:
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(isinstance(item, dict) and not item.keys().isdisjoint(_MESSAGE_KEYS) for item in items)


def _quoted_columns(cells: dict[str, list[object]]) -> Iterable[str]:
    """Find columns of JSON strings, if all text columns are such or one of its cells has an escape."""
    texts = {name: [value for value in values if isinstance(value, str)] for name, values in cells.items()}
    found = [
        name
        for name, values in texts.items()
        if values and len(values) == len(cells[name]) and all(map(_is_json_string, values))
    ]
    is_all = len(found) > 1 and len(found) == len([name for name, values in texts.items() if values])
    return [name for name in found if is_all or any("\\" in text for text in texts[name])]


def _is_json_string(text: str) -> bool:
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return False
    try:
        return isinstance(orjson.loads(text), str)
    except orjson.JSONDecodeError:
        return False


def _read_nested(name: str, value: object, limits: Limits) -> object:
    if is_list_of_texts(value) and name not in LIST_FIELDS:
        return [_read_nested(name, item, limits) for item in value]
    if not isinstance(value, str) or not _BEGIN.match(value):
        return value
    try:
        return _parse(value, limits)
    except NotationError as error:
        raise RowFault(IssueCode.INVALID_CELL, _explain(name, value, str(error)), f"/{name}") from None


def _read_quoted(name: str, value: object, limits: Limits) -> object:
    if not isinstance(value, str) or value == "":
        return value
    if not _is_json_string(value):
        raise RowFault(
            IssueCode.INVALID_CELL,
            f"The texts in {quoted(name)} are JSON strings, in quotes, but this one is none.",
            f"/{name}",
        )
    return orjson.loads(value)


def _parse(text: str, limits: Limits) -> object:
    """Parse a cell; raises NotationError, and RowFault for JSON that breaks a rule (a key twice, too deep)."""
    try:
        encoded = text.encode()
        orjson.loads(encoded)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return parse_notation(text, limits.max_depth)
    return parse_value(encoded, limits)


def _explain(name: str, text: str, what: str) -> str:
    if may_be_cut(text):
        why = f" A spreadsheet keeps {SPREADSHEET_CHARS:,} characters of a cell: export it anew, not through one."
    elif _DOUBLED in text:
        why = " Its backslashes stand twice, as PostgreSQL's COPY and jq's @tsv write them: export it as CSV or JSON."
    else:
        why = " Write the file as JSONL or Parquet."
    return f"The cell {quoted(name)} begins as a list or messages, but {what}.{why}"
