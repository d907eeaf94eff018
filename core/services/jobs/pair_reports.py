"""Reports of every pair: the artifact's `pairs.jsonl`, sorted, filtered, in pages or as a whole."""

import csv
import io
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.domain.artifact_files import PAIR_COLUMNS, PAIRS_FILE
from core.domain.errors import InvalidRequest, NotFound
from core.services.backend import Backend
from core.services.cursors import decode_cursor, encode_cursor
from core.services.jobs import artifacts
from core.services.jobs.stored_files import read_file
from core.services.views import Page, StoredFile

FLAGS = ("likely_mislabelled", "never_learned", "already_satisfied", "forgotten", "truncated")
SORT_KEYS = ("line", "margin", "reference_margin", "margin_first", "gradient_weight", "mislabelled_score")
MAX_BYTES = 256 * 1024**2
"""A longer report is not sorted and filtered here; it can be downloaded with the artifact."""
_MAX_CACHED_BYTES = 64 * 1024**2
_ROWS_AT_ONCE = 1000

Pair = dict[str, Any]


class PairsNotFound(NotFound):
    code = "pairs-not-found"
    title = "The job has no report on its pairs"


class TooManyPairs(InvalidRequest):
    code = "too-many-pairs"
    title = "The report is too long to be sorted here"


@dataclass(frozen=True, kw_only=True)
class PairsQuery:
    sort: str = "line"
    """A key of SORT_KEYS, with `-` for the largest first."""
    flag: str | None = None
    split: Literal["train", "validation"] | None = None


class PairReports:
    """Cache of a few parsed reports, which never change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cached: OrderedDict[str, tuple[int, list[Pair]]] = OrderedDict()

    def find(self, backend: Backend, job_id: str, file: StoredFile) -> list[Pair]:
        with self._lock:
            if file.key in self._cached:
                self._cached.move_to_end(file.key)
                return self._cached[file.key][1]
        pairs = [json.loads(line) for line in _lines(read_file(backend, job_id, file))]
        with self._lock:
            self._cached[file.key] = (file.num_bytes, pairs)
            while len(self._cached) > 1 and sum(size for size, _ in self._cached.values()) > _MAX_CACHED_BYTES:
                self._cached.popitem(last=False)
        return pairs


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
    pairs = _reports.find(backend, job_id, _find_file(backend, project_id, job_id))
    chosen = [
        pair
        for pair in pairs
        if (query.flag is None or query.flag in pair["flags"]) and query.split in (None, pair["split"])
    ]
    key = {"margin": "margin_last"}.get(query.sort.removeprefix("-"), query.sort.removeprefix("-"))
    known = [pair for pair in chosen if pair.get(key) is not None]
    known.sort(key=lambda pair: (pair[key], pair["line"]), reverse=query.sort.startswith("-"))
    return known + [pair for pair in chosen if pair.get(key) is None]


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
    if file.num_bytes > MAX_BYTES:
        raise TooManyPairs(f"The report has {file.num_bytes:,} bytes; download {PAIRS_FILE} with the artifact instead.")
    return file


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
