"""Reports of every pair: the artifact's `pairs.jsonl`, sorted, filtered, in pages or as a whole."""

import csv
import io
import json
import math
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import orjson

from core.domain.errors import InvalidRequest, NotFound, Unavailable
from core.domain.jobs.stored_files import StoredFile
from core.domain.training.artifact_files import PAIR_COLUMNS, PAIRS_FILE
from core.services.backend import Backend
from core.services.cursors import decode_cursor, encode_cursor
from core.services.jobs import artifacts
from core.services.jobs.stored_files import read_file
from core.services.views import Page

FLAGS = ("likely_mislabelled", "never_learned", "already_satisfied", "forgotten", "truncated")
SORT_KEYS = ("line", "margin", "reference_margin", "margin_first", "gradient_weight", "mislabelled_score")
MAX_BYTES = 128 * 1024**2
"""A longer report is not sorted and filtered here; it can be downloaded with the artifact."""
_MAX_TURN_SECONDS = 20.0
_COLUMN_OF = {"margin": "margin_last"} | {name: name for name in SORT_KEYS if name != "margin"}
"""Sort keys, and the columns that they mean."""
_ROWS_AT_ONCE = 1000

Pair = dict[str, Any]


class PairsNotFound(NotFound):
    code = "pairs-not-found"
    title = "The job has no report on its pairs"


class PairsBusy(Unavailable):
    code = "pairs-busy"
    title = "Reports on pairs are being read"


class TooManyPairs(InvalidRequest):
    code = "too-many-pairs"
    title = "The report is too long to be sorted here"


@dataclass(frozen=True, kw_only=True)
class PairsQuery:
    sort: str = "line"
    """A key of SORT_KEYS, with `-` for the largest first."""
    flag: str | None = None
    split: Literal["train", "validation"] | None = None


class ReadReport:
    """A report as its lines, with the columns that are sorted and filtered by: about twice the file's bytes."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.lines: list[bytes] = []
        self.columns: dict[str, array[float]] = {name: array("d") for name in _COLUMN_OF.values()}
        self.flags = array("L")
        self.is_validation = bytearray()
        for line in lines:
            self._add(line)

    def _add(self, line: bytes) -> None:
        pair = orjson.loads(line)
        self.lines.append(line)
        for name, column in self.columns.items():
            value = pair.get(name)
            column.append(math.nan if value is None else value)
        self.flags.append(sum(1 << FLAGS.index(flag) for flag in pair["flags"] if flag in FLAGS))
        self.is_validation.append(pair["split"] == "validation")

    def select(self, query: PairsQuery) -> "SelectedPairs":
        """Return what was asked for, in order; pairs without the value come last, as they stand in the file."""
        bit = 1 << FLAGS.index(query.flag) if query.flag in FLAGS else 0
        wanted = None if query.split is None else query.split == "validation"
        chosen = [
            index
            for index in range(len(self.lines))
            if (query.flag is None or self.flags[index] & bit)
            and (wanted is None or bool(self.is_validation[index]) is wanted)
        ]
        values, lines = self.columns[_COLUMN_OF[query.sort.removeprefix("-")]], self.columns["line"]
        known = [index for index in chosen if not math.isnan(values[index])]
        known.sort(key=lambda index: (values[index], lines[index]), reverse=query.sort.startswith("-"))
        return SelectedPairs(self, known + [index for index in chosen if math.isnan(values[index])])


class SelectedPairs(Sequence[Pair]):
    """Pairs of a report, parsed when they are looked at."""

    def __init__(self, report: ReadReport, indices: list[int]) -> None:
        self._report = report
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> Pair: ...

    @overload
    def __getitem__(self, place: slice) -> list[Pair]: ...

    def __getitem__(self, place: int | slice) -> Pair | list[Pair]:
        if isinstance(place, slice):
            return [orjson.loads(self._report.lines[index]) for index in self._indices[place]]
        pair: Pair = orjson.loads(self._report.lines[self._indices[place]])
        return pair


class PairReports:
    """Reports that were read, within a bound; each is read once, however many ask for it, and one at a time."""

    def __init__(self) -> None:
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._cached: OrderedDict[str, tuple[int, ReadReport]] = OrderedDict()

    def find(self, backend: Backend, job_id: str, file: StoredFile) -> ReadReport:
        """Return the report. Raises PairsBusy when others are read for too long."""
        found = self._known(file.key)
        if found is not None:
            return found
        if not self._reading.acquire(timeout=_MAX_TURN_SECONDS):
            raise PairsBusy("Other reports are being read; try again in a moment.")
        try:
            return self._known(file.key) or self._read(backend, job_id, file)
        finally:
            self._reading.release()

    def _known(self, key: str) -> ReadReport | None:
        with self._lock:
            if key not in self._cached:
                return None
            self._cached.move_to_end(key)
            return self._cached[key][1]

    def _read(self, backend: Backend, job_id: str, file: StoredFile) -> ReadReport:
        with self._lock:  # room is made before: the old ones and the new one together stay within the bound
            while self._cached and file.num_bytes + sum(size for size, _ in self._cached.values()) > MAX_BYTES:
                self._cached.popitem(last=False)
        report = ReadReport(_lines(read_file(backend, job_id, file)))
        with self._lock:
            self._cached[file.key] = (file.num_bytes, report)
        return report


_reports = PairReports()


def page(
    backend: Backend, project_id: str, job_id: str, query: PairsQuery, *, limit: int, cursor: str | None
) -> Page[Pair]:
    """Return a page of pairs. Raises PairsNotFound, TooManyPairs."""
    chosen = select(backend, project_id, job_id, query)
    start = _offset(cursor)
    shown = chosen[start : start + limit]
    is_more = start + limit < len(chosen)
    return Page(data=list(shown), next_cursor=encode_cursor(str(start + limit)) if is_more else None)


def select(backend: Backend, project_id: str, job_id: str, query: PairsQuery) -> Sequence[Pair]:
    """Return all selected pairs in order. Raises PairsNotFound, TooManyPairs."""
    return _reports.find(backend, job_id, _find_file(backend, project_id, job_id)).select(query)


def held_out_margins(backend: Backend, job_id: str, file: StoredFile) -> tuple[list[float], list[float]]:
    """Return lines and margins of a report's held-out pairs, NaN where unknown. Raises TooManyPairs, PairsBusy."""
    _require_readable(file)
    report = _reports.find(backend, job_id, file)
    chosen = [index for index, is_held_out in enumerate(report.is_validation) if is_held_out]
    lines, margins = report.columns["line"], report.columns["margin_last"]
    return [lines[index] for index in chosen], [margins[index] for index in chosen]


def to_csv(pairs: Sequence[Pair]) -> Iterator[bytes]:
    """Write pairs as CSV (RFC 4180), flags joined by spaces."""
    yield _csv_rows([PAIR_COLUMNS])
    for start in range(0, len(pairs), _ROWS_AT_ONCE):
        yield _csv_rows([_cells(pair) for pair in pairs[start : start + _ROWS_AT_ONCE]])


def to_jsonl(pairs: Sequence[Pair]) -> Iterator[bytes]:
    for start in range(0, len(pairs), _ROWS_AT_ONCE):
        yield "".join(json.dumps(pair) + "\n" for pair in pairs[start : start + _ROWS_AT_ONCE]).encode()


def _find_file(backend: Backend, project_id: str, job_id: str) -> StoredFile:
    view = artifacts.get(backend, project_id, job_id)
    file = next((file for file in view.files if file.path == PAIRS_FILE), None)
    if file is None:
        raise PairsNotFound(f"{job_id} ended before it had looked at its pairs.")
    _require_readable(file)
    return file


def _require_readable(file: StoredFile) -> None:
    if file.num_bytes > MAX_BYTES:
        raise TooManyPairs(f"The report has {file.num_bytes:,} bytes; download {PAIRS_FILE} with the artifact instead.")


def _offset(cursor: str | None) -> int:
    position = decode_cursor(cursor) if cursor else "0"
    if not (position.isascii() and position.isdigit() and len(position) < 12):
        raise InvalidRequest("The cursor is not one that this list gave.")
    return int(position)


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _cells(pair: Pair) -> list[Any]:
    return [" ".join(pair["flags"]) if name == "flags" else pair.get(name) for name in PAIR_COLUMNS]


def _csv_rows(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
