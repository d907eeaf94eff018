"""Sums over a file's columns: meaningful ones that are not used, and all verdicts."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from core.datasets.advice.advice import Advice
from core.datasets.advice.suggestions import counterparts
from core.datasets.faults import quoted
from core.datasets.layouts.columns import Role, meaning_in_message, meaning_of
from core.datasets.layouts.layout import SourceRow, is_filled
from core.datasets.layouts.verdicts import names_an_answer, verdict_key

MAX_VALUES: Final = 32
"""Distinct values of one column that are told apart."""
_MAX_COLUMNS: Final = 50
_MAX_ADVICE: Final = 8
OTHERS: Final = "…"
"""Stands for values that are not told apart."""


@dataclass
class UnusedColumn:
    num_rows: int
    line: int
    """Line of the first row that has it."""
    example: str
    has_lists: bool = False
    is_verdict: bool = False
    """Whether it may be a verdict by what stands in it, whatever its name."""
    values: Counter[str] = field(default_factory=Counter)
    """Counts of a column that could be a verdict or a label, by `verdict_key`; `…` for what can be neither."""

    def merge(self, other: "UnusedColumn") -> None:
        """Merge the counts of `other`, which is of later rows."""
        self.num_rows += other.num_rows
        self.has_lists |= other.has_lists
        self.is_verdict |= other.is_verdict
        _update(self.values, other.values)


class NamedSides(NamedTuple):
    """A row whose responses are names of answers."""

    line: int
    side: str
    """The column of its better response."""
    others: list[str]
    """Columns that hold texts."""


@dataclass
class Account:
    """Sums over rows; merged over batches in order they are the file's."""

    unused: dict[str, UnusedColumn] = field(default_factory=dict)
    """Columns with a meaning by their name, and something in them."""
    verdicts: Counter[str] = field(default_factory=Counter)
    """Counts of the layout's columns of verdicts, by `verdict_key`."""
    num_named_sides: int = 0
    """Rows whose responses are no texts, but names of answers in other columns (A, 2, left)."""
    named_sides: NamedSides | None = None
    """The first such row."""
    advice: dict[str, Advice] = field(default_factory=dict)
    """What would take malformed rows, by its sentence."""

    def note_named_sides(self, row: SourceRow, line: int, sides: Sequence[str]) -> None:
        """Record the row where all its responses are names of answers, which stand beside them.

        `sides`: the layout's columns of responses.
        """
        told = [name for name in sides if row.get(name) is not None]
        if len(told) < 2 or not names_an_answer(_last_said(row[told[0]])):
            return
        if not all(names_an_answer(_last_said(row[name])) for name in told[1:]):
            return
        others = [name for name, value in row.items() if name not in told and isinstance(value, str) and value.strip()]
        if not counterparts(others[:_MAX_COLUMNS]):
            return
        self.num_named_sides += 1
        self.named_sides = self.named_sides or NamedSides(line, told[0], others)

    def note_advice(self, advice: Sequence[Advice]) -> None:
        for one in advice:
            if len(self.advice) < _MAX_ADVICE:
                self.advice.setdefault(one.sentence, one)

    def note_unused(self, row: SourceRow, line: int, used: Collection[str], *, are_numbered: bool = False) -> None:
        """Record what is not used of the row.

        `are_numbered`: the names of the responses differ in a number or letter alone, so that something must say which
        of them is better.
        """
        for name, value in row.items():
            if name in used or not is_filled(value):
                continue
            role = meaning_of(name)
            is_verdict = role is None and are_numbered and isinstance(value, str) and names_an_answer(value)
            if role is None and not is_verdict:
                continue
            known = self._note(name, value, line)
            if known and is_verdict:
                known.is_verdict, role = True, Role.VERDICT
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

    def note_replaced(self, name: str, value: object, line: int) -> None:
        """Record a column in whose place another one is read, as the user says."""
        if is_filled(value) and meaning_of(name) is not None and (known := self._note(name, value, line)):
            known.has_lists = False  # decides nothing: the user has decided

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
        self.num_named_sides += other.num_named_sides
        self.named_sides = self.named_sides or other.named_sides
        self.note_advice(list(other.advice.values()))


def _last_said(value: object) -> object:
    """The text of the last of several messages; any other value as it is."""
    last = value[-1] if isinstance(value, list) and value else value
    return last.get("content", last.get("value")) if isinstance(last, dict) else last


def _key(value: object) -> str:
    key = verdict_key(value)
    return OTHERS if key is None or len(key) > 32 else key


def _update(counts: Counter[str], more: Mapping[str, int]) -> None:
    for key, count in more.items():
        counts[key if key in counts or len(counts) < MAX_VALUES else OTHERS] += count


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return quoted(str(value))
