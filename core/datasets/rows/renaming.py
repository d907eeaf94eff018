"""Row under the user's mapping: columns renamed or ignored, verdicts replaced."""

from collections.abc import Collection, Mapping
from typing import Final

from core.datasets.layouts.layout import SourceRow
from core.datasets.layouts.verdicts import verdict_key

MEANINGS: Final = ("first", "second", "tie")
_IN_MESSAGES: Final = "[]."


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
        name, is_path, key = path.partition(_IN_MESSAGES)
        if is_path and isinstance(items := kept.get(name), list):
            kept[name] = [_without(item, key) if isinstance(item, dict) else item for item in items]
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


def _without(item: dict[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in item.items() if name != key}
