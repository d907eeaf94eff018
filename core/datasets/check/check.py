"""Check and normalisation of one file in this process."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from core.datasets.advice.advice import Advice
from core.datasets.advice.later_rows import LaterRows
from core.datasets.advice.suggestions import MAX_ADVICE
from core.datasets.advice.trial import Trial
from core.datasets.cells.json_rows import parse_row
from core.datasets.cells.serialised import NOTHING_SERIALISED, SerialisedColumns
from core.datasets.check.accumulation import Accumulation, issue_counts
from core.datasets.check.issue_log import IssueLog
from core.datasets.check.pool import Work, process_in_order
from core.datasets.column_account import example_values, judge_columns
from core.datasets.faults import FileFault, Note, RowFault, listed
from core.datasets.layouts.layout import SourceRow
from core.datasets.layouts.registry import LAYOUTS_BY_NAME
from core.datasets.lint.lint import Lint
from core.datasets.lint.missing_words import judge_missing
from core.datasets.options import CheckOptions, Limits
from core.datasets.recognition import NUM_SAMPLED_ROWS, validate_options
from core.datasets.result import (
    FINGERPRINTS_FILE,
    ISSUES_FILE,
    ROWS_FILE,
    UNPACKED_FILE,
    CheckResult,
    Refusal,
    Report,
    Statistics,
)
from core.datasets.rows.row_processing import FoundIssue, RowProcessor, records_of
from core.datasets.settled import settle
from core.datasets.sources.batches import Batch, LineBatch, Record
from core.datasets.sources.source import Source
from core.datasets.sources.text import SourceFile, TextStream
from core.domain.dataset_rows import DatasetKind, RowIssue
from core.domain.issue_codes import ISSUE_KINDS, IssueCode
from core.wording import counted

_DOUBTFUL: Final = (IssueCode.NO_COMMON_PROMPT, IssueCode.INVALID_LABEL, IssueCode.DIFFERENT_PROMPTS)
_DEFAULT_LAYOUTS: Final = {
    DatasetKind.PREFERENCE: "explicit",
    DatasetKind.DEMONSTRATION: "prompt-completion",
    DatasetKind.UNPAIRED: "unpaired",
    DatasetKind.RESPONSES: "responses",
}
"""Layouts that name what is wrong with each row, where no row is an object to recognise a layout by."""


def check_file(source: Path, options: CheckOptions, output_dir: Path, *, num_workers: int = 1) -> CheckResult:
    """Read `source` to its end and return the verdict on it.

    Writes `rows.jsonl` (normalised rows in the order of the file; absent when the file is refused) and `issues.jsonl`
    (every issue) into `output_dir`. Nothing else is left there. The answer depends on the bytes and the options only,
    not on `num_workers`; more than one forks, so the calling process must have no other threads.

    Raises:
        InvalidRequest: the options themselves are wrong (an unknown format, an unknown field in `columns`).
    """
    validate_options(options)
    with ExitStack() as cleanup:
        check = _Check(source, options, output_dir, cleanup)
        return check.run(num_workers)


class _Check:
    def __init__(self, source: Path, options: CheckOptions, output_dir: Path, cleanup: ExitStack) -> None:
        self._options = options
        self._rows_path = output_dir / ROWS_FILE
        fingerprints_path = output_dir / FINGERPRINTS_FILE
        cleanup.callback(fingerprints_path.unlink, missing_ok=True)
        self._unpacked = output_dir / UNPACKED_FILE
        cleanup.callback(self._unpacked.unlink, missing_ok=True)
        self._file = SourceFile(source, options.limits)
        cleanup.callback(self._file.close)
        self._log = IssueLog(output_dir / ISSUES_FILE, options.limits)
        cleanup.callback(self._log.close)
        self._rows = Accumulation(self._rows_path, fingerprints_path, self._log, options.limits)
        cleanup.callback(self._rows.close)
        self._format: str | None = None
        self._source: Source | None = None
        self._stream: TextStream | None = None
        self._trial: Trial | None = None
        self._later = LaterRows()

    def run(self, num_workers: int) -> CheckResult:
        try:
            self._read(num_workers)
            refusal = self._judge_rows()
        except FileFault as fault:
            refusal = self._refuse(fault)
        self._rows.close()
        statistics = self._statistics()
        if refusal is None:
            self._lint(statistics)
        else:
            self._rows_path.unlink()
        return self._result(refusal, statistics)

    def _read(self, num_workers: int) -> None:
        options = self._options
        self._stream = TextStream(self._file, options)
        self._source = Source(self._file, self._stream, options, self._unpacked)
        batches = self._source.batches()
        first = next(batches, None)
        if first is None:
            return
        sample = _sample(first, options.limits)
        layout_name = _DEFAULT_LAYOUTS[options.kind]
        serialised = NOTHING_SERIALISED
        if sample:
            self._trial = Trial(_first_records(first), sample, self._later, options)
            self._options, layout, serialised = settle(sample, options)
            self._format = layout_name = layout.name
            self._note_decoded(serialised)
        for note in self._source.notes:
            self._note(note)
        watched = self._later.watch(chain([first], batches))
        work = _with_sketches(watched, options.limits.max_near_duplicate_rows)
        for result in process_in_order(work, RowProcessor(self._options, layout_name, serialised), num_workers):
            self._later.advance()
            self._rows.add(result)

    def _note_decoded(self, serialised: SerialisedColumns) -> None:
        if serialised.quoted:
            names = listed(sorted(serialised.quoted))
            detail = f"The texts of {names} are JSON strings, in quotes and with escapes; what they hold is used."
            self._note(Note(IssueCode.DECODED_TEXTS, detail))

    def _note(self, note: Note, line: int | None = None) -> None:
        self._log.counts[note.code] += 1
        self._log.add(FoundIssue(line, None, *note))

    def _judge_rows(self) -> Refusal | None:
        rows = self._rows
        if rows.num_source_rows == 0:
            raise FileFault(IssueCode.NO_ROWS, "The file has no rows.")
        if self._format is not None:
            for note, line in judge_columns(rows.tally.account, LAYOUTS_BY_NAME[self._format], self._options):
                self._note(note, line)
        if rows.num_rejected and (self._options.on_error == "reject" or not rows.num_accepted):
            return self._refuse_bad_rows()
        if not rows.num_accepted:
            raise FileFault(
                IssueCode.NO_USABLE_ROW,
                f"No usable row is left: {counted(rows.num_set_aside, 'row')} set aside, as the report says.",
            )
        if self._options.kind is not DatasetKind.RESPONSES:  # a model may say such a word
            for note, line in judge_missing(rows.tally.missing_words, rows.num_accepted):
                self._note(note, line)
        return None

    def _refuse_bad_rows(self) -> Refusal:
        account = self._rows.tally.account
        advice = list(account.advice.values())
        if self._log.counts[IssueCode.INVALID_LABEL] and account.verdicts:
            advice += example_values(account.verdicts)
        advice = self._followable(advice)
        sentences = self._told(advice)
        if self._may_skip():
            advice.append(skipping := Advice({"on_error": "skip"}, "To keep the good rows only"))
            sentences.append(skipping.sentence)
        detail = " ".join([self._describe_bad_rows(), *sentences])
        return Refusal(code="rows-rejected", kind="invalid", detail=detail, advice=_changes(advice))

    def _describe_bad_rows(self) -> str:
        rows = self._rows
        first = next((issue for issue in self._log.shown() if issue["severity"] == "error"), None)
        verb, lead = ("is", "It is") if rows.num_rejected == 1 else ("are", "The first is")
        place = f" {lead} {_describe(first)}" if first else ""
        return f"{rows.num_rejected:,} of {counted(rows.num_rows, 'row')} {verb} malformed.{place}"

    def _may_skip(self) -> bool:
        """Whether the rows that would be kept are read rightly: they are most, and the others are no sign against it.

        Where a prompt or the meaning of a verdict is not found in some rows, those that are read may be the accidents.
        """
        rows, counts = self._rows, self._log.counts
        return rows.num_accepted >= rows.num_rejected and not any(counts[code] for code in _DOUBTFUL)

    def _followable(self, advice: Sequence[Advice]) -> list[Advice]:
        """Return those of the uploads that would work, by the rows they are tried on."""
        return self._trial.followable(advice)[:MAX_ADVICE] if advice and self._trial is not None else []

    def _told(self, advice: Sequence[Advice]) -> list[str]:
        """Return the advice as sentences, with what it was tried on."""
        scope = self._trial.scope if self._trial is not None and advice else ""
        return [*(one.sentence for one in advice), *([scope] if scope else [])]

    def _refuse(self, fault: FileFault) -> Refusal:
        self._log.counts[fault.code] += 1
        advice = self._followable(fault.advice)
        detail = " ".join([fault.detail, *self._told(advice)])
        self._log.add(FoundIssue(fault.line, fault.row, fault.code, detail, None))
        kind = ISSUE_KINDS[fault.code].error_kind
        return Refusal(code=fault.code.value, kind=kind, detail=detail, advice=_changes(advice))

    def _statistics(self) -> Statistics:
        statistics = self._rows.tally.statistics(self._rows.num_source_rows)
        statistics["container"] = self._source.container if self._source else None
        statistics["compression"] = self._stream.compression if self._stream else None
        is_text = self._stream is not None and self._stream.container is None
        statistics["encoding"] = self._stream.encoding if self._stream and is_text else None
        return statistics

    def _lint(self, statistics: Statistics) -> None:
        lint = Lint(self._rows.accepted_rows(self._options.kind), self._options.limits.max_issues)
        for issue in lint.issues(statistics):
            self._log.add(issue)
        self._log.counts.update(lint.totals)
        if self._rows.tally.may_be_escaped():
            detail = (
                "Many texts have a backslash and an n where others have a line break, and none has a line break, as "
                "PostgreSQL's COPY, mysql --batch and jq's @tsv write them. They are kept as they stand."
            )
            self._note(Note(IssueCode.ESCAPES_IN_TEXT, detail))

    def _result(self, refusal: Refusal | None, statistics: Statistics) -> CheckResult:
        rows = self._rows
        return CheckResult(
            verdict="ready" if refusal is None else "rejected",
            kind=self._options.kind,
            format=self._format,
            sha256=self._file.sha256(),
            num_bytes=self._file.num_bytes,
            num_rows=rows.num_rows,
            num_accepted=rows.num_accepted,
            num_rejected=rows.num_rejected,
            num_set_aside=rows.num_set_aside,
            report=Report(
                counts=issue_counts(self._log.counts),
                issues=self._log.shown(),
                issues_truncated=self._log.is_truncated,
                statistics=statistics,
            ),
            refusal=refusal,
        )


def _describe(issue: RowIssue) -> str:
    place = f"line {issue['line']:,}" if issue["line"] is not None else "the file"
    return f"{place}: {issue['detail']}"


def _sample(batch: Batch, limits: Limits) -> list[SourceRow]:
    """Return the first rows of the batch that are objects."""
    rows: list[SourceRow] = []
    for value in _values(batch):
        try:
            row = parse_row(value, limits) if isinstance(value, bytes) else value
        except RowFault:
            continue
        if isinstance(row, dict):
            rows.append(row)
        if len(rows) == NUM_SAMPLED_ROWS:
            break
    return rows


def _first_records(batch: Batch) -> list[Record]:
    return list(islice(records_of(batch), NUM_SAMPLED_ROWS))


def _changes(advice: Sequence[Advice]) -> tuple[Mapping[str, Any], ...]:
    return tuple(one.change for one in advice if not one.is_example)


def _values(batch: Batch) -> Iterator[bytes | dict[str, object] | Note]:
    if isinstance(batch, LineBatch):
        yield from (line for line in batch.data.split(b"\n") if line and not line.isspace() and len(line) < 1 << 20)
    else:
        yield from (record.value for record in batch.records)


def _with_sketches(batches: Iterable[Batch], max_rows: int) -> Iterator[Work]:
    """Mark batches for sketches until enough rows have passed; blank lines count, which only ends them earlier."""
    num_rows = 0
    for batch in batches:
        yield batch, num_rows < max_rows
        num_rows += batch.num_lines if isinstance(batch, LineBatch) else len(batch.records)
