"""Batches of rows → normalised lines, issues, tallies and fingerprints. Runs in as many processes as there are."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from core.datasets.contents import contents_of
from core.datasets.faults import FileFault, Note, RowFault
from core.datasets.fingerprints import Fingerprints
from core.datasets.json_rows import check_shape, parse_row
from core.datasets.judgement import judge
from core.datasets.layouts.layout import Example, Layout, Reading, SourceRow
from core.datasets.layouts.registry import LAYOUTS_BY_NAME, classify
from core.datasets.options import CheckOptions
from core.datasets.recognition import rename_columns
from core.datasets.sources.batches import Batch, LineBatch, Record
from core.datasets.sources.json_lines import line_too_long
from core.datasets.tally import Tally
from core.domain.dataset_rows import DatasetKind
from core.domain.issue_codes import ISSUE_KINDS, Effect, IssueCode

MAX_ISSUES_PER_BATCH = 5_000


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
    """At most MAX_ISSUES_PER_BATCH; `counts` has them all."""
    tally: Tally = field(default_factory=Tally)
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    fault: FoundIssue | None = None
    """The file is refused at this row; what follows in the batch is not read."""


class RowProcessor:
    def __init__(self, options: CheckOptions, layout_name: str) -> None:
        self._options = options
        self._layout = LAYOUTS_BY_NAME[layout_name]
        self._used_fields = frozenset(self._layout.fields)

    def process(self, batch: Batch, with_sketches: bool) -> BatchResult:
        """`with_sketches`: prepare the rows for the search for near-duplicates."""
        result = BatchResult(fingerprints=Fingerprints(with_sketches=with_sketches))
        rows: list[bytes] = []
        for record in self._records(batch):
            try:
                self._process_record(record, result, rows)
            except FileFault as fault:
                result.fault = FoundIssue(record.line, result.num_source_rows, fault.code, fault.detail, None)
                break
            result.num_source_rows += 1
        result.rows = b"".join(rows)
        result.row_lengths = list(map(len, rows))
        result.tally.finish(self._options.kind)
        result.fingerprints.finish()
        return result

    def _records(self, batch: Batch) -> Iterator[Record]:
        if isinstance(batch, LineBatch):
            for offset, line in enumerate(batch.data.split(b"\n")):
                if line and not line.isspace():
                    yield Record(batch.first_line + offset, line)
        else:
            yield from batch.records

    def _process_record(self, record: Record, result: BatchResult, rows: list[bytes]) -> None:
        try:
            reading = self._read(record, result.tally)
            remarks = reading.notes
        except RowFault as fault:
            result.num_rejected += 1
            self._report(result, record.line, fault.note)
            return
        for note in remarks:
            result.num_set_aside += ISSUE_KINDS[note.code].effect is Effect.ROW_SET_ASIDE
            self._report(result, record.line, note)
        for example in reading.examples:
            self._process_example(record.line, example, result, rows)

    def _process_example(self, line: int, example: Example, result: BatchResult, rows: list[bytes]) -> None:
        options = self._options
        try:
            contents = contents_of(example)
            notes = judge(example, contents, options.kind, options.limits.long_row_chars)
        except RowFault as fault:
            result.num_rejected += 1
            self._report(result, line, fault.note)
            return
        for note in notes:
            self._report(result, line, note)
        if notes and ISSUE_KINDS[notes[0].code].effect is Effect.ROW_SET_ASIDE:
            result.num_set_aside += 1
            return
        result.num_accepted += 1
        rows.append(_dump(line, example, options.kind))
        result.tally.add(line, example, contents)
        result.fingerprints.add(line, result.num_source_rows, example, contents)

    def _read(self, record: Record, tally: Tally) -> Reading:
        row = self._row(record)
        tally.note_fields(row, self._used_fields)
        try:
            return self._layout.read(row)
        except RowFault:
            self._refuse_other_layout(row, record.line)
            raise

    def _row(self, record: Record) -> SourceRow:
        value, limits = record.value, self._options.limits
        if isinstance(value, bytes):
            if len(value) > limits.max_line_bytes:
                raise line_too_long(record.line, limits)
            return rename_columns(parse_row(value, limits), self._options.columns)
        if isinstance(value, Note):
            raise RowFault(*value)
        check_shape(value, limits)
        return rename_columns(value, self._options.columns)

    def _refuse_other_layout(self, row: SourceRow, line: int) -> None:
        """A row that is whole in another layout is no malformed row, but another file's: dropping it would be a loss.

        An explicit row whose prompt is missing looks implicit, and is taken for what it is.
        """
        other = classify(row)
        if (
            other is None
            or other is self._layout
            or _is_same_family(other, self._layout)
            or not _is_readable(other, row)
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


def _is_same_family(other: Layout, layout: Layout) -> bool:
    if layout.name == "explicit":
        return other.name == "implicit"
    return layout.name in ("conversational", "ultrafeedback") and other.name == "implicit-conversational"


def _is_readable(layout: Layout, row: SourceRow) -> bool:
    try:
        layout.read(row)
    except RowFault:
        return False
    return True


def _dump(line: int, example: Example, kind: DatasetKind) -> bytes:
    row: dict[str, object] = {"line": line, "prompt": example.prompt}
    if kind is DatasetKind.PREFERENCE:
        row |= {"chosen": example.first, "rejected": example.second}
    else:
        row["response"] = example.first
    if kind is DatasetKind.UNPAIRED:
        row["label"] = example.label
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
