"""Sums over a file's columns: meaningful ones that are not used, and all verdicts."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from core.datasets.faults import quoted
from core.datasets.layouts.columns import Role, meaning_in_message, meaning_of
from core.datasets.layouts.layout import SourceRow
from core.datasets.layouts.verdicts import verdict_key

MAX_VALUES: Final = 32
"""Distinct values of one column that are told apart."""
_MAX_COLUMNS: Final = 50
_OTHERS: Final = "…"


@dataclass
class UnusedColumn:
    num_rows: int
    line: int
    """Line of the first row that has it."""
    example: str
    has_lists: bool = False
    values: Counter[str] = field(default_factory=Counter)
    """Counts of a column that could be a verdict or a label, by `verdict_key`; `…` for what can be neither."""

    def merge(self, other: "UnusedColumn") -> None:
        """Merge the counts of `other`, which is of later rows."""
        self.num_rows += other.num_rows
        self.has_lists |= other.has_lists
        _update(self.values, other.values)


@dataclass
class Account:
    """Sums over rows; merged over batches in order they are the file's."""

    unused: dict[str, UnusedColumn] = field(default_factory=dict)
    """Columns with a meaning by their name, and something in them."""
    verdicts: Counter[str] = field(default_factory=Counter)
    """Counts of the layout's columns of verdicts, by `verdict_key`."""

    def note_unused(self, row: SourceRow, line: int, used: Collection[str]) -> None:
        for name, value in row.items():
            if name in used or value in (None, "", [], {}) or (role := meaning_of(name)) is None:
                continue
            known = self._note(name, value, line)
            if known and role in (Role.VERDICT, Role.LABEL):
                _update(known.values, {_key(value): 1})

    def _note(self, name: str, value: object, line: int) -> UnusedColumn | None:
        known = self.unused.get(name)
        if known is None:
            if len(self.unused) >= _MAX_COLUMNS:
                return None
            known = self.unused[name] = UnusedColumn(0, line, _shown(value))
        known.num_rows += 1
        known.has_lists |= isinstance(value, list | dict)
        return known

    def note_message_keys(self, name: str, keys: Mapping[str, object], line: int) -> None:
        """Keys of the messages of one column that nothing reads, with an example each."""
        for key, value in keys.items():
            if key == "value" or meaning_in_message(key) is not None:
                self._note(f"{name}[].{key}", value, line)

    def note_verdicts(self, row: SourceRow, columns: Collection[str]) -> None:
        for name in columns:
            value = row.get(name)
            for item in value if isinstance(value, list) else (value,):
                _update(self.verdicts, {_key(item): 1})

    def merge(self, other: "Account") -> None:
        for name, column in other.unused.items():
            if name in self.unused:
                self.unused[name].merge(column)
            elif len(self.unused) < _MAX_COLUMNS:
                self.unused[name] = column
        _update(self.verdicts, other.verdicts)


def _key(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    key = verdict_key(value)
    return _OTHERS if key is None or len(key) > 32 else key


def _update(counts: Counter[str], more: Mapping[str, int]) -> None:
    for key, count in more.items():
        counts[key if key in counts or len(counts) < MAX_VALUES else _OTHERS] += count


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return quoted(str(value))
