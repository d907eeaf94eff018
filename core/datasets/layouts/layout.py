"""Type of a layout: one way in which files represent preferences, demonstrations, or labelled responses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from core.datasets.faults import Note
from core.datasets.layouts.columns import CONTEXT, PREAMBLE, Role
from core.domain.dataset_rows import DatasetKind, Text

SourceRow = Mapping[str, object]


class Example(NamedTuple):
    """One normalised row, whatever its kind."""

    prompt: Text
    first: Text
    """The chosen response, or the only one."""
    second: Text | None = None
    """The rejected response of a pair."""
    label: bool | None = None
    """Label of an unpaired response."""
    tools: list[dict[str, Any]] | None = None
    """Functions that the prompt may call."""
    documents: list[dict[str, Any]] | None = None
    model: str | None = None
    """Name of the model that gave the response."""


class Reading(NamedTuple):
    """Result of reading one row of the file: several pairs where it ranks several answers."""

    examples: Sequence[Example]
    notes: Sequence[Note]
    """Remarks; those that set something aside count as rows of their own."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    name: str
    """Name as reported in `format`."""
    kind: DatasetKind
    title: str
    columns: Mapping[str, Role]
    """What a row of this layout uses, and as what; `PREAMBLE` and `CONTEXT` are used by every layout."""
    matches: Callable[[SourceRow], bool]
    """Does the row look like this layout? Cheap, and never raises."""
    read: Callable[[SourceRow], Reading]
    """Reader of a row; raises RowFault."""
    source: str = ""
    """Where the layout is documented, or which program writes it."""
    one_of: tuple[tuple[str, ...], ...] = ()
    """Groups of columns of which a row uses the first that has something in it; see `passed_over`."""
    message_keys: frozenset[str] = frozenset()
    """Keys that it reads of the messages of a column, as `messages[].score`, beside those that every layout reads."""
    unread_in_answers: Callable[[SourceRow], tuple[str, Mapping[str, object]]] | None = None
    """Name of the row's list of answers, and what they hold that is not read; None where lists hold messages only."""
    open_verdicts: tuple[str, ...] = ()
    """Columns of verdicts whose numbers may count from 0 or from 1: the whole file must tell."""

    @cached_property
    def roles(self) -> Mapping[str, Role]:
        return {**CONTEXT, **PREAMBLE, **self.columns}

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of the columns that a row of this layout uses; the rest is reported as ignored."""
        return frozenset((*PREAMBLE, *self.columns))

    @cached_property
    def choices(self) -> tuple[tuple[str, ...], ...]:
        """`one_of`, and the system prompts and tools that every layout reads."""
        systems = tuple(name for name in PREAMBLE if self.roles[name] is Role.SYSTEM)
        return (*self.one_of, systems, ("tools", "functions"))

    @cached_property
    def chosen_from(self) -> frozenset[str]:
        """All columns of `choices`."""
        return frozenset(name for group in self.choices for name in group)

    def passed_over(self, row: SourceRow) -> frozenset[str]:
        """Columns that the row has, but that the layout does not use, as another one of their group comes first."""
        found: list[str] = []
        for group in self.choices:
            filled = [name for name in group if is_filled(row.get(name))]
            found += [name for name in filled[1:] if row[name] != row[filled[0]]]
        return frozenset(found)


def is_filled(value: object) -> bool:
    """Has a field anything in it? An empty cell of a table is an empty text."""
    return value is not None and value != "" and value != [] and value != {}


def first_filled(row: SourceRow, names: Sequence[str]) -> str | None:
    """The first of the names with something in it, else the first that is there at all; None where none is."""
    there = [name for name in names if name in row]
    return next((name for name in there if is_filled(row[name])), there[0] if there else None)
