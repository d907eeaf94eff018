"""A data set's `rows.jsonl` → the encoded layout (`core.domain.encoded_format`), with flat memory and on all cores.

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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from core.domain import encoded_format
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import DomainError
from core.tokenization.encode_part import (
    OUTCOME_FILE,
    PROGRESS_FILE,
    PartJob,
    PartOutcome,
    encode_part,
    little_endian,
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

ByteProgress = Callable[[int, int], None]
"""Called with bytes done and bytes in all. What it raises ends the encoding."""


@dataclass(frozen=True, kw_only=True)
class EncodeSummary:
    num_rows: int
    num_tokens: int
    digest: str
    """Of the encoded content: kind, tokens, scored flags, rows."""
    num_left_out: int
    """Rows not encoded; the two lists name them, up to a bound."""
    set_aside: list[tuple[int, int]]
    """(line, tokens of prompt and longer response) of rows longer than `max_length`"""
    refused: list[tuple[int, str]]
    """(line, why) of rows that the base model's template or tokenizer cannot take"""


def encode_file(
    rows: Path,
    tokenizer: PairTokenizer,
    out_dir: Path,
    *,
    kind: DatasetKind,
    max_length: int,
    on_progress: ByteProgress = lambda done, total: None,
    num_processes: int | None = None,
) -> EncodeSummary:
    """Encodes every row of at most `max_length` tokens; a longer one is left out and named, never cut.

    `out_dir` is made, and holds the finished layout once `meta.json` is in it. `num_processes` defaults to what the
    file's size and this machine's cores are worth.

    Raises:
        NothingToEncode: no row is left; the message says why.
        DamagedRows: the rows are not of that kind.
        UnusableTokenizer, UnusableChatTemplate: no row can be encoded with this base model.
        EncodingStopped: an encoding process died.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    work = out_dir / ".parts"
    shutil.rmtree(work, ignore_errors=True)
    jobs = _plan(rows, tokenizer, work, kind, max_length, num_processes)
    total = jobs[-1].end
    try:
        if len(jobs) == 1:
            outcomes = [encode_part(tokenizer, jobs[0], lambda done: on_progress(done, total))]
        else:
            outcomes = _encode_in_processes(jobs, total, on_progress)
        return _join(jobs, outcomes, out_dir, kind)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _plan(  # the arguments of `encode_file`
    rows: Path, tokenizer: PairTokenizer, work: Path, kind: DatasetKind, max_length: int, num_processes: int | None
) -> list[PartJob]:
    size = rows.stat().st_size
    worth = min(len(os.sched_getaffinity(0)), 1 + size // BYTES_PER_PROCESS, MAX_PROCESSES)
    count = max(1, num_processes or worth)
    jobs = []
    for part in range(count):
        directory = work / str(part)
        directory.mkdir(parents=True)
        jobs.append(
            PartJob(
                model_dir=str(tokenizer.model_dir),
                now=tokenizer.now.isoformat(),
                rows=str(rows),
                kind=kind.value,
                max_length=max_length,
                start=size * part // count,
                end=size * (part + 1) // count,
                directory=str(directory),
            )
        )
    return jobs


def _encode_in_processes(jobs: list[PartJob], total: int, on_progress: ByteProgress) -> list[PartOutcome]:
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
            on_progress(sum(_done_bytes(job) for job in jobs), total)
            if any(process.returncode for process in processes):
                break
            time.sleep(POLL_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    outcomes = [_read_outcome(job) for job in jobs]
    on_progress(total, total)
    return outcomes


def _done_bytes(job: PartJob) -> int:
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
    values["set_aside"] = [tuple(pair) for pair in values["set_aside"]]
    values["refused"] = [tuple(pair) for pair in values["refused"]]
    return PartOutcome(**values)


def _join(jobs: list[PartJob], outcomes: list[PartOutcome], out_dir: Path, kind: DatasetKind) -> EncodeSummary:
    set_aside = [pair for outcome in outcomes for pair in outcome.set_aside]
    refused = [pair for outcome in outcomes for pair in outcome.refused]
    num_rows = sum(outcome.num_rows for outcome in outcomes)
    if not num_rows:
        raise NothingToEncode(_explain_nothing(set_aside, refused, jobs[0].max_length))
    digest = hashlib.sha256(f"{encoded_format.VERSION}\n{kind.value}\n{num_rows}\n".encode())
    for name in (encoded_format.TOKENS_FILE, encoded_format.SCORED_FILE, encoded_format.ROWS_FILE):
        with (out_dir / name).open("wb") as target:
            for chunk in _chunks(jobs, outcomes, name):
                digest.update(chunk)
                target.write(chunk)
    summary = EncodeSummary(
        num_rows=num_rows,
        num_tokens=sum(outcome.num_tokens for outcome in outcomes),
        digest=digest.hexdigest(),
        num_left_out=sum(outcome.num_left_out for outcome in outcomes),
        set_aside=set_aside,
        refused=refused,
    )
    meta = {
        "version": encoded_format.VERSION,
        "kind": kind.value,
        "num_rows": num_rows,
        "num_tokens": summary.num_tokens,
        "digest": summary.digest,
    }
    (out_dir / encoded_format.META_FILE).write_text(json.dumps(meta), encoding="utf-8")
    return summary


def _chunks(jobs: list[PartJob], outcomes: list[PartOutcome], name: str) -> Iterator[bytes]:
    """A column of all parts; offsets into the tokens made those of the whole."""
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


def _explain_nothing(set_aside: list[tuple[int, int]], refused: list[tuple[int, str]], max_length: int) -> str:
    if refused:
        line, why = refused[0]
        return f"None of the rows can be used with this base model. Line {line}: {why}"
    if set_aside:
        shortest = min(tokens for _, tokens in set_aside)
        return (
            f"All rows are longer than max_length ({max_length} tokens); the shortest has {shortest}. Raise max_length."
        )
    return "The data set has no rows."
