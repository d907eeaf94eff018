"""Check of a file in a child process with hard limits on memory, processor time and file size.

`python -m core.datasets.check` is the child (`core.datasets.check.child`). A hostile file that crashes a parser, or
eats its memory, costs the child and nothing else. The reader's modules are loaded there, not in the process that asks.
"""

import compileall
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from core.children.environment import kept_environment
from core.confinement import Bounds, confined
from core.datasets.options import CheckOptions
from core.datasets.result import FINGERPRINTS_FILE, ISSUES_FILE, ROWS_FILE, UNPACKED_FILE, CheckResult
from core.disk_space import EXIT_OUT_OF_SPACE
from core.domain.errors import DomainError, InvalidRequest, TooLarge, Unavailable
from core.domain.typed_json import from_values

EXIT_OUT_OF_MEMORY = 77
EXIT_BAD_OPTIONS = 78
EXIT_STALLED = 80
MIN_BYTES_TO_SHARE = 1 << 20
"""Size of a file for which a second process is worth its start."""
SECONDS_FOR_ANY_FILE = 300
BYTES_PER_SECOND = 100_000
"""A check that is slower than this (a six-hundredth of what it usually is) hangs."""
_LOOK_SECONDS = 2.0
_PACKAGE_ROOT = Path(__file__).resolve().parents[3]


class CheckTimedOut(TooLarge):
    code = "dataset-check-timeout"
    title = "The file took too long to check"


class CheckOutOfMemory(TooLarge):
    code = "dataset-check-memory"
    title = "The file takes too much memory to check"


class CheckCrashed(InvalidRequest):
    code = "dataset-check-crashed"
    title = "The file made the check stop"


def check_in_child(
    source: Path,
    options: CheckOptions,
    output_dir: Path,
    *,
    timeout_seconds: float,
    memory_bytes: int,
    num_workers: int = 2,
    while_waiting: Callable[[], None] = lambda: None,
) -> CheckResult:
    """Run `check_file` in a child process that is killed, with its helpers, when its time is over.

    It has five minutes and ten seconds for each megabyte of the file, but at most `timeout_seconds`.
    `memory_bytes` is what the child and its helpers may hold together; no one of them may pass half of it. A check for
    which that is too little (Parquet in large pages) is made again by one process alone, which may hold all of it.

    `while_waiting` is called every other second; what it raises ends the check and is passed on.

    Raises:
        CheckTimedOut, CheckOutOfMemory: the file is too much for the limits (kind `too_large`).
        CheckCrashed: the child died of the file.
        InvalidRequest: the options themselves are wrong.
        Unavailable: there is no room for the rows.
    """
    num_bytes = source.stat().st_size
    timeout_seconds = min(timeout_seconds, SECONDS_FOR_ANY_FILE + num_bytes / BYTES_PER_SECOND)
    task = {
        "source": str(source.resolve()),
        "output_dir": str(output_dir.resolve()),
        "options": asdict(options) | {"columns": dict(options.columns), "values": dict(options.values)},
        "num_workers": num_workers if num_bytes >= MIN_BYTES_TO_SHARE else 1,
        "memory_bytes": memory_bytes,
        "cpu_seconds": int(timeout_seconds) + 5,
    }
    deadline = time.monotonic() + timeout_seconds
    try:
        try:
            return _run_child(task, source, output_dir, timeout_seconds, while_waiting)
        except CheckOutOfMemory:
            if task["num_workers"] == 1:
                raise
        left = max(1.0, deadline - time.monotonic())
        return _run_child(task | {"num_workers": 1}, source, output_dir, left, while_waiting)
    except DomainError:
        for name in (ROWS_FILE, ISSUES_FILE, FINGERPRINTS_FILE, UNPACKED_FILE):
            (output_dir / name).unlink(missing_ok=True)
        raise


def _run_child(
    task: dict[str, Any], source: Path, output_dir: Path, timeout_seconds: float, while_waiting: Callable[[], None]
) -> CheckResult:
    _write_bytecode()
    with (
        subprocess.Popen(
            confined([sys.executable, "-m", "core.datasets.check"], Bounds(writes=[output_dir], reads=[source])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a traceback could carry the file's text into a log
            cwd=output_dir,
            env=_child_environment(),
            start_new_session=True,
        ) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        try:
            asked = pool.submit(process.communicate, json.dumps(task).encode(), timeout=timeout_seconds)
            answer = _await_answer(asked, while_waiting)
        except subprocess.TimeoutExpired:
            raise _timed_out(timeout_seconds) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == -signal.SIGXCPU:
        raise _timed_out(timeout_seconds)
    return _read_answer(process.returncode, answer)


@cache
def _write_bytecode() -> None:
    """Compile the child's modules once for all checks, which may write nothing beside the code: a fifth of their time.

    Installed packages have their bytecode; a checkout, or an image without it, gets it here where it may be written.
    """
    if not sys.dont_write_bytecode:
        for package in ("datasets", "domain"):
            compileall.compile_dir(_PACKAGE_ROOT / "core" / package, quiet=2)


def _await_answer(asked: "Future[tuple[bytes, bytes]]", while_waiting: Callable[[], None]) -> bytes:
    while True:
        try:
            return asked.result(timeout=_LOOK_SECONDS)[0]
        except TimeoutError:
            while_waiting()


def _timed_out(timeout_seconds: float) -> CheckTimedOut:
    return CheckTimedOut(
        f"The file could not be checked within {timeout_seconds:g} seconds. Split it into smaller files."
    )


def _read_answer(return_code: int, answer: bytes) -> CheckResult:
    if return_code == 0:
        return from_values(CheckResult, json.loads(answer))
    if return_code == EXIT_BAD_OPTIONS:
        raise InvalidRequest(json.loads(answer)["detail"])
    if return_code == EXIT_OUT_OF_MEMORY:
        detail = json.loads(answer)["detail"] if answer else ""
        raise CheckOutOfMemory(
            detail or "The file needs more memory to check than it may have. Split it into smaller files."
        )
    if return_code == EXIT_STALLED:
        raise CheckTimedOut("The check of the file stopped making progress. Send it again.")
    if return_code == EXIT_OUT_OF_SPACE:
        raise Unavailable("The checker has no room to write the rows of the file. Try again later.")
    raise CheckCrashed(
        "The file made the check stop unexpectedly: it is damaged, or made to do harm. Export it again, as JSONL.",
        exit_code=return_code,
    )


def _child_environment() -> dict[str, str]:
    """Return an environment without secrets, path entry for the current directory, or large thread pools."""
    return kept_environment() | {
        "PYTHONPATH": str(_PACKAGE_ROOT),
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        # Buffers of one batch serve the next instead of going back to the system, page by page.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
        "ARROW_DEFAULT_MEMORY_POOL": "system",
    }
