"""A process that has imported everything and forks workers and APIs: a fault run then starts one in milliseconds.

One JSON object a line: in, what to start; out, `{"pid"}` of what was started and `{"pid", "code"}` of what has ended.
The children die with it, and it ends with its standard input.
"""

import ctypes
import functools
import gc
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from botocore.loaders import JSONFileLoader

import api.server
import worker.app
import worker.light.generations
from core import failpoints
from core.settings import load_settings
from core.storage.s3 import S3Access, S3ObjectStore

TESTS = Path(__file__).resolve().parents[1]
_PR_SET_PDEATHSIG = 1
# Every S3 client reads the same megabytes of descriptions; with the cache, a forked process has them from its birth.
JSONFileLoader.load_file = staticmethod(functools.cache(JSONFileLoader().load_file))  # type: ignore[method-assign]


class Process:
    """One forked process; `code` is negative for the signal that ended it."""

    def __init__(self, pid: int, kind: str) -> None:
        self.pid = pid
        self.kind = kind
        self.code: int | None = None
        self._has_ended = threading.Event()

    @property
    def is_running(self) -> bool:
        return not self._has_ended.is_set()

    def send(self, number: int) -> None:
        if self.is_running:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = 240) -> int:
        assert self._has_ended.wait(seconds), f"{self.kind} {self.pid} has not ended after {seconds} s"
        assert self.code is not None
        return self.code

    def has_ended(self, code: int) -> None:
        self.code = code
        self._has_ended.set()


class Nursery:
    """The side that asks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "faults.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=TESTS.parent,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "support")))},
        )
        self._lock = threading.Lock()
        self._born: list[int] = []
        self._was_born = threading.Condition()
        self._processes: dict[int, Process] = {}
        self._early: dict[int, int] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def start(
        self, kind: str, environment: dict[str, str], log: Path, trainer_command: Sequence[str] | None
    ) -> Process:
        order = {"kind": kind, "environment": environment, "log": str(log), "trainer_command": trainer_command}
        with self._lock, self._was_born:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            assert self._was_born.wait_for(lambda: self._born, 600), "the nursery does not answer"
            process = Process(self._born.pop(), kind)
            self._processes[process.pid] = process
            if process.pid in self._early:
                process.has_ended(self._early.pop(process.pid))
            return process

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            with self._was_born:
                if "code" not in said:
                    self._born.append(said["pid"])
                    self._was_born.notify_all()
                elif said["pid"] in self._processes:
                    self._processes.pop(said["pid"]).has_ended(said["code"])
                else:
                    self._early[said["pid"]] = said["code"]


def serve() -> None:
    """The side that forks: one thread, no connection, no lock held."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker.light.generations._NICENESS = 0  # what is killed counts here, and not who comes first
    _know_s3()
    gc.freeze()  # what is there now is not copied by collections in the children
    rest = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.02)
        _report_ended()
        if not readable:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            _end_all()
            return
        *orders, rest = (rest + chunk).split(b"\n")
        for order in orders:
            _fork(json.loads(order))


def _know_s3() -> None:
    S3ObjectStore(S3Access(bucket="none", endpoint_url="http://127.0.0.1:1"))


def _fork(order: dict[str, Any]) -> None:
    pid = os.fork()
    if pid:
        _children.add(pid)
        _say({"pid": pid})
        return
    code = 70
    try:
        code = _be(order)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:  # noqa: BLE001 - the forked process must not go on as the nursery
        print(f"ended by {error!r}", file=sys.stderr, flush=True)  # noqa: T201
    finally:
        sys.stderr.flush()
        os._exit(code)


def _be(order: dict[str, Any]) -> int:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for old, new in ((null, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    random.seed()
    for name in [name for name in os.environ if name.startswith("PREFTUNE_")]:
        del os.environ[name]
    os.environ.update(order["environment"])
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    os.chdir(Path(order["log"]).parent)
    settings = load_settings()
    if order["kind"] == "api":
        return api.server.run(settings)
    return worker.app.run(settings, order["trainer_command"] or worker.app.TRAINER_COMMAND)


_children: set[int] = set()


def _report_ended() -> None:
    while _children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        _children.discard(pid)
        _say({"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _end_all() -> None:
    for pid in _children:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _children and time.monotonic() < deadline:
        pid, _ = os.waitpid(-1, 0)
        _children.discard(pid)


def _say(said: dict[str, int]) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    serve()
