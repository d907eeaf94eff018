"""Row under the user's mapping: columns renamed or ignored, verdicts replaced."""

from collections.abc import Collection, Mapping, Sequence
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
        name, *keys = path.replace("[]", "").split(".")
        if IN_MESSAGES in path and name in kept:
            kept[name] = _without(kept[name], keys)
    return kept


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


def _without(value: object, keys: Sequence[str]) -> object:
    """Return the value without what stands at the path, in each element of the lists on the way."""
    if isinstance(value, list):
        return [_without(item, keys) for item in value]
    if isinstance(value, dict) and "replies" in value and keys[0] != "replies":  # a tree
        value = {**value, "replies": _without(value["replies"], keys)}
    if not isinstance(value, dict) or keys[0] not in value:
        return value
    if len(keys) == 1:
        return {name: inner for name, inner in value.items() if name != keys[0]}
    return {**value, keys[0]: _without(value[keys[0]], keys[1:])}
