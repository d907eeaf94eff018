"""The trainer process of one attempt: its messages in order, then how it ended.

It runs in a session of its own, so that the whole group can be killed, and with an environment that holds no secret.
"""

import io
import logging
import os
import queue
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from core.confinement import Bounds, confined
from core.domain.trainer_protocol import (
    MAX_LINE_BYTES,
    SupervisorMessage,
    TrainerMessage,
    decode_trainer_message,
    encode_message,
)
from worker.child_environment import trainer_environment
from worker.processes.start import command_of

_MAX_WAITING_MESSAGES = 10_000
"""Beyond that the trainer waits: it is far ahead of the database."""
_MAX_LOG_LINE_CHARS = 65536

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Message that the process and all of its group are gone."""

    returncode: int
    has_spoken_nonsense: bool
    peak_bytes: int | None = None
    """Most memory that it had at once; None where that is not known."""


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    command: Sequence[str]
    """Starts the trainer; the work directory is added as the last argument."""
    num_threads: int
    group_command: Sequence[str] = command_of("device_group")
    """Starts the agent of a job's trainers on several devices, likewise."""

    def for_group(self) -> "LaunchPlan":
        """Return the plan that starts the processes of a job on several devices or nodes."""
        return replace(self, command=self.group_command)


class TrainerProcess:
    def __init__(
        self,
        plan: LaunchPlan,
        work_dir: Path,
        on_line: Callable[[str], None] = lambda line: None,
        bounds: Bounds | None = None,
    ) -> None:
        """`on_line` is given every line of its standard error, by a thread of this class.

        Without `bounds` it reaches its work directory only.
        """
        self.inbox: queue.Queue[TrainerMessage | Ended] = queue.Queue(_MAX_WAITING_MESSAGES)
        self._is_closed = threading.Event()
        self._has_spoken_nonsense = False
        self._on_line = on_line
        (work_dir / "tmp").mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            confined([*plan.command, str(work_dir)], bounds or Bounds(writes=[work_dir])),
            cwd=work_dir,
            env=trainer_environment(work_dir, plan.num_threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._write_lock = threading.Lock()
        self._reap_lock = threading.Lock()
        self._is_reaped = False
        self._threads = [
            threading.Thread(target=target, name=f"trainer {self._process.pid} {name}", daemon=True)
            for name, target in (("messages", self._read_messages), ("log", self._read_log))
        ]
        self._watcher = threading.Thread(target=self._watch, name=f"trainer {self._process.pid} watcher", daemon=True)
        for thread in (*self._threads, self._watcher):
            thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: SupervisorMessage) -> None:
        """Send a message; one to a trainer that has gone is dropped."""
        stdin = self._process.stdin
        assert stdin is not None
        with self._write_lock, suppress(OSError, ValueError):
            stdin.write(encode_message(message))
            stdin.flush()

    def terminate(self) -> None:
        self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole group at once."""
        self._signal(os.killpg, signal.SIGKILL)

    def _signal(self, send: Callable[[int, int], None], number: signal.Signals) -> None:
        # Not by Popen, which looks first whether the process has ended: that would reap it under the watcher's hands.
        with self._reap_lock:
            if not self._is_reaped:
                with suppress(ProcessLookupError, PermissionError):
                    send(self._process.pid, number)

    def close(self) -> None:
        """Kill and clean up; idempotent."""
        self.kill()
        self._is_closed.set()
        self._watcher.join()
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _watch(self) -> None:
        # Not reaped yet, the leader keeps its process group's number from being given to others.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        with self._reap_lock:
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self._is_reaped = True
        for thread in self._threads:
            thread.join()
        ended = Ended(
            returncode=self._process.returncode,
            has_spoken_nonsense=self._has_spoken_nonsense,
            peak_bytes=_peak_bytes(usage),
        )
        self._put(ended)

    def _read_messages(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        with stdout:
            while line := stdout.readline(MAX_LINE_BYTES + 1):
                try:
                    message = decode_trainer_message(line)
                except ValueError:
                    self._has_spoken_nonsense = True
                    _log.error("trainer %d: not a message of the protocol: %.200r", self.pid, line)
                    self._kill_and_drain(stdout)
                    return
                self._put(message)

    def _kill_and_drain(self, stdout: IO[bytes]) -> None:
        self.kill()
        while stdout.read(65536):
            pass

    def _read_log(self) -> None:
        """Note every line; a progress bar, which returns to the line's begin without ending it, gives one a state."""
        stderr = self._process.stderr
        assert stderr is not None
        with io.TextIOWrapper(stderr, encoding="utf-8", errors="replace") as lines:
            while line := lines.readline(_MAX_LOG_LINE_CHARS):
                self._note_line(line.rstrip())
                # What stands behind is no line of its own: it may begin within a secret.
                num_left_out = 0
                while line and not line.endswith("\n"):
                    line = lines.readline(_MAX_LOG_LINE_CHARS)
                    num_left_out += len(line)
                if num_left_out:
                    self._note_line(f"=== {num_left_out:,} more characters of that line are left out ===")

    def _note_line(self, text: str) -> None:
        _log.info("trainer %d: %s", self.pid, text)
        self._on_line(text)

    def _put(self, item: TrainerMessage | Ended) -> None:
        while not self._is_closed.is_set():
            try:
                self.inbox.put(item, timeout=0.2)
                return
            except queue.Full:
                continue


def _peak_bytes(usage: resource.struct_rusage) -> int | None:
    """Return the child's peak memory: the kernel starts counting at this process's own size."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage.ru_maxrss * 1024 if usage.ru_maxrss > own else None
