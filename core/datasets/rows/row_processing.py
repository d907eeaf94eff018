"""Processing of row batches to normalised lines, issues, tallies and fingerprints; runs in several processes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import orjson

from core.datasets.advice.suggestions import counterparts
from core.datasets.cells.json_rows import check_shape, parse_row
from core.datasets.cells.serialised import (
    NOTHING_SERIALISED,
    SPREADSHEET_CHARS,
    SerialisedColumns,
    deserialise,
    may_be_cut,
    remarks,
)
from core.datasets.faults import FileFault, Note, RowFault
from core.datasets.layouts.columns import Role
from core.datasets.layouts.layout import Example, Layout, Reading, SourceRow
from core.datasets.layouts.preamble import add_preamble
from core.datasets.layouts.registry import LAYOUTS_BY_NAME, classify
from core.datasets.options import CheckOptions
from core.datasets.recognition import is_readable
from core.datasets.rows.contents import Accepted, Contents, contents_of
from core.datasets.rows.context import add_context, context_fields, refuse_media, refuse_placeholders
from core.datasets.rows.fingerprints import NO_FINGERPRINTS, Fingerprints, take_fingerprints
from core.datasets.rows.judgement import judge, refuse_nul, without_empty_turns
from core.datasets.rows.plain_pairs import MARKS, are_expected, marks_in, read_plain_pair
from core.datasets.rows.renaming import leave_out, rename_columns, tell_verdicts
from core.datasets.rows.rendered import may_be_rendered, reread
from core.datasets.rows.tally import Tally
from core.datasets.rows.told_scores import SCORE_NAMES, compare_scores
from core.datasets.sources.batches import Batch, LineBatch, Record
from core.datasets.sources.json_lines import line_too_long
from core.domain.dataset_rows import DatasetKind
from core.domain.issue_codes import ISSUE_KINDS, Effect, IssueCode

MAX_ISSUES_PER_BATCH = 5_000
_LESS: Final[Mapping[str, tuple[str, ...]]] = {
    "explicit": ("implicit",),
    "conversational": ("implicit-conversational",),
    "ultrafeedback": ("implicit-conversational",),
    "step-dpo": ("explicit",),
    "prodigy": ("text",),
    "doccano": ("text",),
    "input-output-label": ("input-output",),
}
"""Layout -> what a malformed row of it looks like, with a column missing."""
_MAX_NOT_PLAIN = 50
"""Rows of a batch after which the short way is left: to try it in vain costs time."""

_MAY_BE_CUT: Final = Note(
    IssueCode.CELL_MAY_BE_CUT,
    f"A cell has {SPREADSHEET_CHARS:,} characters, the most that a spreadsheet keeps: its end may be lost.",
)


class FoundIssue(NamedTuple):
    line: int | None
    row: int | None
    """Counted from the beginning of the batch until the batches are put together."""
    code: IssueCode
    detail: str
    pointer: str | None


@dataclass
class BatchResult:
    rows: bytes = b""
    """Normalised rows, a line each."""
    row_lengths: list[int] = field(default_factory=list)
    num_source_rows: int = 0
    num_accepted: int = 0
    num_rejected: int = 0
    num_set_aside: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    issues: list[FoundIssue] = field(default_factory=list)
    """Issues, at most MAX_ISSUES_PER_BATCH; `counts` has them all."""
    tally: Tally = field(default_factory=Tally)
    fingerprints: Fingerprints = NO_FINGERPRINTS
    fault: FoundIssue | None = None
    """The file is refused at this row; what follows in the batch is not read."""


@dataclass
class _Progress:
    may_hold_nul: bool
    result: BatchResult = field(default_factory=BatchResult)
    accepted: list[Accepted] = field(default_factory=list)
    num_not_plain: int = 0
    marks: tuple[bytes, ...] = MARKS
    """Those that a line of the batch may hold."""


class RowProcessor:
    def __init__(
        self, options: CheckOptions, layout_name: str, serialised: SerialisedColumns = NOTHING_SERIALISED
    ) -> None:
        self._options = options
        self._layout = LAYOUTS_BY_NAME[layout_name]
        self._serialised = serialised
        self._is_preference = options.kind is DatasetKind.PREFERENCE
        self._is_verbatim = options.kind is DatasetKind.RESPONSES
        """A model's words are kept as they are, whatever they look like."""
        self._expects_plain_pairs = are_expected(options, layout_name) and not serialised
        self._max_plain_bytes = min(options.limits.max_line_bytes, options.limits.long_row_chars)
        self._used_fields = self._layout.fields
        columns, ignored = options.columns, options.ignore
        self._are_numbered = bool(counterparts([columns.get("chosen", ""), columns.get("rejected", "")]))
        self._replaced = [ours for ours in columns if ours not in columns.values() and ours not in ignored]
        self._sides = tuple(name for name, role in self._layout.columns.items() if role is Role.RESPONSE)
        self._verdicts = tuple(name for name, role in self._layout.columns.items() if role is Role.VERDICT)

    def process(self, batch: Batch, with_sketches: bool) -> BatchResult:
        """Process a batch; `with_sketches` prepares its rows for the search for near-duplicates."""
        progress = _Progress(may_hold_nul=_may_hold_nul(batch))
        result = progress.result
        may_be_plain = self._expects_plain_pairs and not progress.may_hold_nul
        if may_be_plain and isinstance(batch, LineBatch):
            progress.marks = marks_in(batch.data)
        for record in records_of(batch):
            if may_be_plain and self._take_plain_pair(record, progress):
                continue
            try:
                self._process_record(record, progress)
            except FileFault as fault:
                result.fault = FoundIssue(record.line, result.num_source_rows, fault.code, fault.detail, None)
                break
            result.num_source_rows += 1
        self._finish(result, progress.accepted, with_sketches)
        return result

    def _take_plain_pair(self, record: Record, progress: _Progress) -> bool:
        line = record.value
        if progress.num_not_plain > _MAX_NOT_PLAIN or type(line) is not bytes or len(line) > self._max_plain_bytes:
            return False
        texts = read_plain_pair(line, progress.marks)
        if texts is None:
            progress.num_not_plain += 1
            return False
        result = progress.result
        progress.accepted.append(Accepted(record.line, result.num_source_rows, Example(*texts), texts))
        result.num_source_rows += 1
        return True

    def _finish(self, result: BatchResult, accepted: list[Accepted], with_sketches: bool) -> None:
        kind = self._options.kind
        rows = [_dump(row.line, row.example, kind) for row in accepted]
        result.num_accepted = len(rows)
        result.rows = b"".join(rows)
        result.row_lengths = list(map(len, rows))
        result.tally.count(accepted, kind)
        result.fingerprints = take_fingerprints(accepted, with_sketches=with_sketches)

    def _process_record(self, record: Record, progress: _Progress) -> None:
        result = progress.result
        try:
            reading = self._read(record, result.tally)
        except RowFault as fault:
            result.num_rejected += 1
            result.tally.account.note_advice(fault.advice)
            self._report(result, record.line, fault.note)
            return
        if isinstance(record.value, dict) and any(map(may_be_cut, record.value.values())):
            self._report(result, record.line, _MAY_BE_CUT)
        for note in reading.notes:
            result.num_set_aside += ISSUE_KINDS[note.code].effect is Effect.ROW_SET_ASIDE
            self._report(result, record.line, note)
        for example in reading.examples:
            self._take(example, record.line, progress)

    def _take(self, example: Example, line: int, progress: _Progress) -> None:
        options, result = self._options, progress.result
        contents = contents_of(example)
        try:
            if not self._is_verbatim and may_be_rendered(contents):
                refuse_placeholders(example)
                example, notes = reread(example)
                contents = contents_of(example)
                for note in notes:
                    self._report(result, line, note)
            if progress.may_hold_nul:
                refuse_nul(contents, options.kind)
        except RowFault as fault:
            result.num_rejected += 1
            self._report(result, line, fault.note)
            return
        judged = self._judged(line, example, contents, result)
        if judged is not None:
            progress.accepted.append(Accepted(line, result.num_source_rows, judged, contents))

    def _judged(self, line: int, example: Example, contents: Contents, result: BatchResult) -> Example | None:
        """The example as it is kept, with its remarks reported; None where it is set aside."""
        notes = judge(example, contents, self._options.kind, self._options.limits.long_row_chars)
        if not self._is_verbatim:
            notes += remarks(example[:3], self._options.limits)
        for note in notes:
            self._report(result, line, note)
        if notes and ISSUE_KINDS[notes[0].code].effect is Effect.ROW_SET_ASIDE:
            result.num_set_aside += 1
            return None
        has_empty_turn = any(note.code is IssueCode.EMPTY_TURN for note in notes)
        return without_empty_turns(example) if has_empty_turn else example

    def _read(self, record: Record, tally: Tally) -> Reading:
        raw = self._row(record)
        row = self._named(raw)
        for name in self._replaced:
            if name in raw:
                tally.account.note_replaced(name, raw[name], record.line)
        self._account(row, record.line, tally)
        if not self._used_fields.issuperset(row):
            refuse_media(row, self._used_fields)
        try:
            return self._completed(row, self._layout.read(row))
        except RowFault:
            if not self._is_verbatim:  # every row of a demonstration is one of a response as well
                self._refuse_other_layout(row, record.line)
            raise

    def _account(self, row: SourceRow, line: int, tally: Tally) -> None:
        used = self._used_fields
        tally.note_message_keys(row, line, self._layout)
        if self._is_preference and len(row) > 3:
            tally.account.note_named_sides(row, line, self._sides)
        if self._verdicts:
            tally.account.note_verdicts(row, self._verdicts)
        passed_over = self._passed_over(row)
        if passed_over or not used.issuperset(row):
            used = (used | context_fields(row)) - passed_over
            tally.note_fields(row, used)
            told = used | SCORE_NAMES if self._is_preference else used
            tally.account.note_unused(row, line, told, are_numbered=self._are_numbered)

    def _passed_over(self, row: SourceRow) -> frozenset[str]:
        layout = self._layout
        if layout.chosen_from.isdisjoint(row) or len(layout.chosen_from & row.keys()) < 2:
            return frozenset()
        return layout.passed_over(row)

    def _completed(self, row: SourceRow, reading: Reading) -> Reading:
        """Return the reading with system prompt, history, tools and documents from columns of their own."""
        reading = add_context(row, add_preamble(row, reading, self._layout.roles))
        if self._is_preference and not SCORE_NAMES.isdisjoint(row):
            return compare_scores(row, reading, self._options.ties)
        return reading

    def _row(self, record: Record) -> SourceRow:
        value, limits = record.value, self._options.limits
        if isinstance(value, bytes):
            if len(value) > limits.max_line_bytes:
                raise line_too_long(record.line, limits)
            return parse_row(value, limits)
        if isinstance(value, Note):
            raise RowFault(*value)
        check_shape(value, limits)
        return value

    def _named(self, row: SourceRow) -> SourceRow:
        """Return the row under the layouts' names, with serialised cells read."""
        options = self._options
        named = rename_columns(leave_out(row, options.ignore), options.columns)
        found = deserialise(named, self._serialised, options.limits)
        return tell_verdicts(found, self._verdicts, options.values)

    def _refuse_other_layout(self, row: SourceRow, line: int) -> None:
        """Refuse the file for a row that is complete in another layout: skipping it would lose data.

        An explicit row whose prompt is missing looks implicit, and is taken for what it is.
        """
        other = classify(row)
        if (
            other is None
            or other is self._layout
            or _is_same_family(other, self._layout)
            or not is_readable(other, row)
        ):
            return
        raise FileFault(
            IssueCode.MIXED_FORMATS,
            f"Line {line} is {other.title}, but the file is {self._layout.title}. Send one file per format.",
        )

    def _report(self, result: BatchResult, line: int, note: Note) -> None:
        result.counts[note.code] += 1
        if len(result.issues) < MAX_ISSUES_PER_BATCH:
            result.issues.append(FoundIssue(line, result.num_source_rows, *note))


def records_of(batch: Batch) -> Iterable[Record]:
    if not isinstance(batch, LineBatch):
        return batch.records
    lines = enumerate(batch.data.split(b"\n"), batch.first_line)
    return [Record(number, line) for number, line in lines if line and not line.isspace()]


def _may_hold_nul(batch: Batch) -> bool:
    """Whether lines may hold a NUL, which is an escape in JSON; searched at once, as few files have one."""
    return not isinstance(batch, LineBatch) or b"\\u0000" in batch.data


def _is_same_family(other: Layout, layout: Layout) -> bool:
    return other.name in _LESS.get(layout.name, ())


def _dump(line: int, example: Example, kind: DatasetKind) -> bytes:
    row: dict[str, object] = {"line": line, "prompt": example.prompt}
    if kind is DatasetKind.PREFERENCE:
        row |= {"chosen": example.first, "rejected": example.second}
    else:
        row["response"] = example.first
    if kind is DatasetKind.UNPAIRED:
        row["label"] = example.label
    if example.model is not None:
        row["model"] = example.model
    if example.tools:
        row["tools"] = example.tools
    if example.documents:
        row["documents"] = example.documents
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
