"""Encoding of a dataset's `rows.jsonl` (`core.domain.training.encoded_format`) with constant memory and on all cores.

Small files are encoded here. A large one is cut into byte ranges, one process each; their parts are joined in order, so
that the result does not depend on how many there were.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from core.disk_space import EXIT_OUT_OF_SPACE, NoRoom
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import DomainError
from core.domain.set_aside import SetAsideReason, describe
from core.domain.training import encoded_format
from core.domain.typed_json import from_values
from core.tokenization.encode_part import (
    MAX_SET_ASIDE_KEPT,
    OUTCOME_FILE,
    PROGRESS_FILE,
    PartJob,
    PartOutcome,
    encode_part,
    little_endian,
)
from core.tokenization.encode_part import (
    SetAside as SetAside,
)
from core.tokenization.errors import (
    DamagedRows,
    EncodingStopped,
    NothingToEncode,
    TemplateTooCostly,
    UnusableChatTemplate,
    UnusableTokenizer,
)
from core.tokenization.pair_tokenizer import PairTokenizer

BYTES_PER_PROCESS = 8 * 1024**2
"""A process more than the first one pays from about this size of a file."""
MAX_PROCESSES = 32
POLL_SECONDS = 0.1
_CHUNK_BYTES = 4 * 1024**2
_ERRORS: dict[str, type[DomainError]] = {
    error.code: error for error in (DamagedRows, UnusableChatTemplate, TemplateTooCostly, UnusableTokenizer)
}

RowProgress = Callable[[int], None]
"""Called with the number of rows done. What it raises ends the encoding."""


@dataclass(frozen=True, kw_only=True)
class EncodeSummary:
    num_rows: int
    num_tokens: int
    digest: str
    """Digest of the encoded content: kind, tokens, scored flags, rows."""
    num_set_aside: int
    """Rows that are not encoded: too long, or not fit for this base model."""
    set_aside: list[SetAside]
    """The first `MAX_SET_ASIDE_KEPT`."""
    set_aside_counts: dict[str, int]
    """All of them, by `SetAsideReason`."""


def encode_file(
    rows: Path,
    tokenizer: PairTokenizer,
    directory: Path,
    *,
    kind: DatasetKind,
    max_length: int,
    on_progress: RowProgress | None = None,
    num_processes: int | None = None,
    keeps_equal: bool = False,
) -> EncodeSummary:
    """Encode every row of at most `max_length` tokens into `directory`; a longer one is set aside, never cut.

    So is a pair whose sides are the same tokens, unless `keeps_equal` says that it is only to be scored.

    `directory` is made, and holds the finished layout once `meta.json` is in it. `num_processes` defaults to what the
    file's size and this machine's cores are worth.

    Raises:
        NothingToEncode: no row is left; the message says why.
        DamagedRows: the rows are not of that kind.
        UnusableTokenizer, UnusableChatTemplate: no row can be encoded with this base model.
        EncodingStopped: an encoding process died.
    """
    show = on_progress or (lambda done: None)
    directory.mkdir(parents=True, exist_ok=True)
    work = directory / ".parts"
    shutil.rmtree(work, ignore_errors=True)
    try:
        whole = PartJob(
            model_dir=str(tokenizer.model_dir),
            now=tokenizer.now.isoformat(),
            template_kwargs=dict(tokenizer.template_kwargs),
            keeps_tail=tokenizer.keeps_tail,
            rows=str(rows),
            kind=kind.value,
            max_length=max_length,
            keeps_equal=keeps_equal,
            start=0,
            end=rows.stat().st_size,
            directory=str(work),
        )
        jobs = _split(whole, num_processes)
        outcomes = [encode_part(tokenizer, jobs[0], show)] if len(jobs) == 1 else _encode_in_processes(jobs, show)
        return _join(jobs, outcomes, directory, kind)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _split(whole: PartJob, num_processes: int | None) -> list[PartJob]:
    """Split into parts of about the same size, each with a directory of its own."""
    size = whole.end
    worth = min(len(os.sched_getaffinity(0)), 1 + size // BYTES_PER_PROCESS, MAX_PROCESSES)
    count = max(1, num_processes or worth)
    jobs = []
    for part in range(count):
        directory = Path(whole.directory) / str(part)
        directory.mkdir(parents=True)
        start, end = size * part // count, size * (part + 1) // count
        jobs.append(replace(whole, start=start, end=end, directory=str(directory)))
    return jobs


def _encode_in_processes(jobs: list[PartJob], on_progress: RowProgress) -> list[PartOutcome]:
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for job in jobs:
            path = Path(job.directory) / "job.json"
            path.write_text(json.dumps(asdict(job)), encoding="utf-8")
            command = [sys.executable, "-m", "core.tokenization.encode_part", str(path)]
            # One thread each: the processes already use all cores.
            environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
            processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
            )
        while any(process.poll() is None for process in processes):
            on_progress(sum(_done_rows(job) for job in jobs))
            if any(process.returncode for process in processes):
                break
            time.sleep(POLL_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(process.returncode == EXIT_OUT_OF_SPACE for process in processes):
        raise NoRoom("the tokenised rows")
    outcomes = [_read_outcome(job) for job in jobs]
    on_progress(sum(_done_rows(job) for job in jobs))
    return outcomes


def _done_rows(job: PartJob) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((Path(job.directory) / PROGRESS_FILE).read_text(encoding="utf-8"))
    return 0


def _read_outcome(job: PartJob) -> PartOutcome:
    try:
        values = json.loads((Path(job.directory) / OUTCOME_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise EncodingStopped("A process that encodes rows ended early; this machine may be short of memory.") from None
    if "error" in values:
        raise _ERRORS[values["error"]](values["detail"])
    return from_values(PartOutcome, values)


def _join(jobs: list[PartJob], outcomes: list[PartOutcome], directory: Path, kind: DatasetKind) -> EncodeSummary:
    set_aside = [row for outcome in outcomes for row in outcome.set_aside]
    num_set_aside = sum(outcome.num_set_aside for outcome in outcomes)
    counts = sum((Counter(outcome.set_aside_counts) for outcome in outcomes), Counter())
    num_rows = sum(outcome.num_rows for outcome in outcomes)
    if not num_rows:
        reasons = {row.line: row.detail for row in set_aside}
        raise NothingToEncode(_explain_nothing(set_aside, counts, jobs[0].max_length), reasons=reasons)
    digest = hashlib.sha256(f"{encoded_format.VERSION}\n{kind.value}\n{num_rows}\n".encode())
    for name in (encoded_format.TOKENS_FILE, encoded_format.SCORED_FILE, encoded_format.ROWS_FILE):
        with (directory / name).open("wb") as target:
            for chunk in _chunks(jobs, outcomes, name):
                digest.update(chunk)
                target.write(chunk)
    summary = EncodeSummary(
        num_rows=num_rows,
        num_tokens=sum(outcome.num_tokens for outcome in outcomes),
        digest=digest.hexdigest(),
        num_set_aside=num_set_aside,
        set_aside=set_aside[:MAX_SET_ASIDE_KEPT],
        set_aside_counts=dict(counts),
    )
    meta = {
        "version": encoded_format.VERSION,
        "kind": kind.value,
        "num_rows": num_rows,
        "num_tokens": summary.num_tokens,
        "digest": summary.digest,
    }
    (directory / encoded_format.META_FILE).write_text(json.dumps(meta), encoding="utf-8")
    return summary


def _chunks(jobs: list[PartJob], outcomes: list[PartOutcome], name: str) -> Iterator[bytes]:
    """Yield a column of all parts, with offsets into the tokens made those of the whole."""
    base = 0
    row_bytes = 8 * len(encoded_format.COLUMNS)
    for job, outcome in zip(jobs, outcomes, strict=True):
        with (Path(job.directory) / name).open("rb") as part:
            while chunk := part.read(_CHUNK_BYTES // row_bytes * row_bytes):
                yield _shift(chunk, base) if base and name == encoded_format.ROWS_FILE else chunk
        base += outcome.num_tokens


def _shift(chunk: bytes, base: int) -> bytes:
    table = array("q", chunk)
    if sys.byteorder == "big":
        table.byteswap()
    width = len(encoded_format.COLUMNS)
    for column in range(1, 5):  # the four offsets
        for cell in range(column, len(table), width):
            table[cell] += base
    return little_endian("q", table.tolist())


def _explain_nothing(set_aside: list[SetAside], counts: Counter[str], max_length: int) -> str:
    if not set_aside:
        return "There is no row to train on."
    if set(counts) == {SetAsideReason.TOO_LONG}:
        longest = max(row.num_tokens or 0 for row in set_aside)
        rows, one = ("The only row is", "it") if counts.total() == 1 else (f"All {counts.total():,} rows are", "one")
        return (
            f"{rows} longer than max_length ({max_length} tokens); {one} has {longest}. "
            "Shorten the rows, or raise max_length as far as the base model's context goes."
        )
    first = next(row for row in set_aside if row.reason != SetAsideReason.TOO_LONG)
    return f"No row can be used with this base model: {describe(counts)}. Line {first.line}: {first.detail}"
