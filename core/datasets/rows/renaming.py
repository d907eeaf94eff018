"""Row under the user's mapping: columns renamed or ignored, verdicts replaced."""

from collections.abc import Collection, Mapping
from typing import Final

from core.datasets.layouts.layout import SourceRow
from core.datasets.layouts.verdicts import verdict_key

MEANINGS: Final = ("first", "second", "tie")
IN_MESSAGES: Final = "[]."
"""Stands between a column and a key of its messages."""


def rename_columns(row: SourceRow, columns: Mapping[str, str]) -> SourceRow:
    """Return the row with the user's names replaced by the layouts' names."""
    if not columns:
        return row
    renamed = {name: value for name, value in row.items() if name not in columns.values()}
    return renamed | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}


def leave_out(row: SourceRow, ignored: Collection[str]) -> SourceRow:
    """Return the row without the columns and keys of messages (`messages[].name`) that are to be ignored."""
    if not ignored:
        return row
    kept = {name: value for name, value in row.items() if name not in ignored}
    for path in ignored:
        name, is_path, key = path.partition(IN_MESSAGES)
        if is_path:
            _leave_out_of(kept, name, key)
    return kept


def _leave_out_of(row: dict[str, object], name: str, key: str) -> None:
    """Takes a key out of the messages of a column: a list of them, a single one, or an object's `messages`."""
    outer, _, inner = name.rpartition(".")
    if outer and isinstance(within := row.get(outer), dict):
        row[outer] = within = dict(within)
        return _leave_out_of(within, inner, key)
    value = row.get(name)
    if isinstance(value, list):
        row[name] = [_without(item, key) if isinstance(item, dict) else item for item in value]
    elif isinstance(value, dict):
        row[name] = _without(value, key)
    return None


def tell_verdicts(row: SourceRow, columns: Collection[str], values: Mapping[str, str]) -> SourceRow:
    """Return the row with its verdicts replaced by the user's words; an unmapped one stays."""
    if not values:
        return row
    words = {verdict_key(told): word for told, word in values.items()}
    found = dict(row)
    for name in row.keys() & set(columns):
        value = row[name]
        found[name] = (
            [words.get(verdict_key(item), item) for item in value]
            if isinstance(value, list)
            else words.get(verdict_key(value), value)
        )
    return found


def _without(item: dict[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in item.items() if name != key}
