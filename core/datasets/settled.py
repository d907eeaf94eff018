"""What is settled of a file by its first rows, before the whole is read: its layout, and which cells hold lists."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from core.datasets.advice.advice import Advice
from core.datasets.cells.serialised import NOTHING_SERIALISED, SerialisedColumns, deserialise, find_serialised
from core.datasets.faults import FileFault, RowFault, listed, quoted
from core.datasets.layouts.columns import Role
from core.datasets.layouts.layout import Example, Layout, SourceRow
from core.datasets.options import CheckOptions, Limits
from core.datasets.recognition import recognise, require_columns
from core.datasets.rows.contents import contents_of
from core.datasets.rows.renaming import leave_out, rename_columns, tell_verdicts
from core.domain.dataset_rows import DatasetKind
from core.domain.issue_codes import IssueCode

_DECIDING = (Role.VERDICT, Role.SCORE)


class Settled(NamedTuple):
    options: CheckOptions
    """Options as sent, or without a mapping that says what the file's own layout says."""
    layout: Layout
    serialised: SerialisedColumns


def settle(sample: Sequence[SourceRow], options: CheckOptions) -> Settled:
    """Recognise the layout of the sampled rows, which have the file's own names.

    A mapping that names the columns as the file's own layout has them changes nothing: the rows are built by that
    layout, so that they are the same however they were asked for.

    Raises:
        FileFault: a mapped column is missing, or the rows are of no layout known, or of another kind.
    """
    require_columns(sample, options.columns)
    named = [rename_columns(leave_out(row, options.ignore), options.columns) for row in sample]
    is_verbatim = options.kind is DatasetKind.RESPONSES  # what a model said may look like JSON
    serialised = NOTHING_SERIALISED if is_verbatim else find_serialised(named, options.limits)
    mapped = Settled(options, recognise(_readable(named, serialised, options.limits), options), serialised)
    if not options.columns or options.format != "auto":
        return mapped
    return _without_mapping(sample, mapped) or mapped


def _without_mapping(sample: Sequence[SourceRow], mapped: Settled) -> Settled | None:
    """Return the file's own reading, where the mapping agrees with it in every sampled row; else None."""
    try:
        own = settle(sample, replace(mapped.options, columns={}))
    except FileFault:
        return None
    roles, own_roles = mapped.layout.roles, own.layout.roles
    has_same_roles = all(roles.get(ours) is own_roles.get(theirs) for ours, theirs in mapped.options.columns.items())
    agreements = [_agree(_read(row, mapped), _read(row, own)) for row in sample]
    if has_same_roles and any(agreements) and False not in agreements:
        return own
    _require_verdicts(mapped, own, sample)
    return None


def _require_verdicts(mapped: Settled, own: Settled, sample: Sequence[SourceRow]) -> None:
    """Raise FileFault where the mapping names the responses, and passes over what says which of them is better."""
    options, there = mapped.options, {name for row in sample for name in row}
    deciding = [name for name, role in own.layout.columns.items() if role in _DECIDING and name in there]
    if not deciding or set(deciding) & set(options.columns.values()):
        return
    raise FileFault(
        IssueCode.FIELD_TO_DECIDE,
        f"`columns` names the responses, but in the rows {listed(deciding)} says which of them is better: without the "
        f"mapping, the file is read as {quoted(own.layout.name)}.",
        advice=[
            Advice({"columns": {}}, "To have it read so"),
            Advice({"ignore": deciding}, f"If {listed(deciding)} is not to count"),
        ],
    )


def _read(row: SourceRow, settled: Settled) -> Sequence[Example] | None:
    options, layout = settled.options, settled.layout
    verdicts = [name for name, role in layout.columns.items() if role is Role.VERDICT]
    try:
        named = rename_columns(leave_out(row, options.ignore), options.columns)
        found = tell_verdicts(deserialise(named, settled.serialised, options.limits), verdicts, options.values)
        return layout.read(found).examples
    except RowFault:
        return None


def _agree(mapped: Sequence[Example] | None, own: Sequence[Example] | None) -> bool | None:
    """Whether both have the same responses and labels, and the mapped prompt is all of the other's, or its end.

    None where the mapping cannot read the row.
    """
    if mapped is None:
        return None
    if own is None or len(mapped) != len(own):
        return False
    return all(map(_is_part, mapped, own))


def _is_part(example: Example, whole: Example) -> bool:
    prompt, *responses = contents_of(example)
    own_prompt, *own_responses = contents_of(whole)
    return (
        [text.strip() for text in responses] == [text.strip() for text in own_responses]
        and example.label is whole.label
        and prompt.strip() in own_prompt
    )


def _readable(rows: list[SourceRow], serialised: SerialisedColumns, limits: Limits) -> list[SourceRow]:
    """Return those of the rows that can be read."""
    found: list[SourceRow] = []
    for row in rows:
        with suppress(RowFault):
            found.append(deserialise(row, serialised, limits))
    return found or rows
