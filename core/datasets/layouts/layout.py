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
    """Of an unpaired response."""
    tools: list[dict[str, Any]] | None = None
    """Functions that the prompt may call."""
    documents: list[dict[str, Any]] | None = None


class Reading(NamedTuple):
    """Result of reading one row of the file: several pairs where it ranks several answers."""

    examples: Sequence[Example]
    notes: Sequence[Note]
    """Remarks; those that set something aside count as rows of their own."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    name: str
    """As reported in `format`."""
    kind: DatasetKind
    title: str
    columns: Mapping[str, Role]
    """What a row of this layout uses, and as what; `PREAMBLE` and `CONTEXT` are used by every layout."""
    matches: Callable[[SourceRow], bool]
    """Does the row look like this layout? Cheap, and never raises."""
    read: Callable[[SourceRow], Reading]
    """Raises RowFault."""
    source: str = ""
    """Where the layout is documented, or which program writes it."""
    open_verdicts: tuple[str, ...] = ()
    """Columns of verdicts whose numbers may count from 0 or from 1: the whole file must tell."""

    @cached_property
    def roles(self) -> Mapping[str, Role]:
        return {**CONTEXT, **PREAMBLE, **self.columns}

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of the columns that a row of this layout uses; the rest is reported as ignored."""
        return frozenset((*PREAMBLE, *self.columns))
