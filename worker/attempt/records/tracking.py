"""Export of curves to tracking servers: each point is also sent through the server's own client.

A child process per target holds the client, so that one which hangs, crashes or eats memory costs the export and
nothing else. Handing a point over never waits: what a target is too slow for is dropped, the oldest first.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, Any

from core.domain.jobs.job_state import JobStatus
from core.domain.trainer_protocol import MetricPoint
from core.settings import PREFIX, Settings, SettingsError

MAX_WAITING = 5_000
"""Points of one target."""
MAX_BATCH = 50
CLOSE_SECONDS = 10.0
"""For the rest, at the end of an attempt; then the target's process is killed."""
EXPORTER = (sys.executable, "-P", "-m", "worker.processes.tracking_client")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Target:
    client: str
    """`mlflow` or `wandb`: name of the package and of the extra."""
    options: dict[str, str]
    command: Sequence[str] = EXPORTER


def targets_of(settings: Settings) -> list[Target]:
    """Return the targets; raises SettingsError where a client is not installed."""
    found = []
    if settings.mlflow_tracking_uri:
        options = {"tracking_uri": settings.mlflow_tracking_uri, "experiment": settings.mlflow_experiment}
        found.append(Target(client="mlflow", options=options))
    if settings.wandb_project:
        found.append(Target(client="wandb", options={"project": settings.wandb_project}))
    for target in found:
        if find_spec(target.client) is None:
            raise SettingsError(
                f"export to {target.client} is set, but its client is not installed: "
                f"pip install 'preftune-service[{target.client}]'"
            )
    return found


class LiveExport:
    """Export of one attempt. Its processes start with the first points, once the spec is resolved."""

    def __init__(self, targets: Sequence[Target], job_id: str) -> None:
        self._targets = targets
        self._job_id = job_id
        self._lines: list[_Line] = []

    def add(self, points: Sequence[MetricPoint], spec: dict[str, Any]) -> None:
        if not self._targets:
            return
        if not self._lines and not self._start(spec):
            return
        now = round(time.time() * 1000)
        for line in self._lines:
            line.add([_encode(point, now) for point in points])

    def _start(self, spec: dict[str, Any]) -> bool:
        try:
            self._lines = [_Line(target, self._job_id, spec) for target in self._targets]
        except OSError as error:
            self._targets = ()
            _log.warning("%s: the live export cannot start: %s", self._job_id, error)
        return bool(self._targets)

    def close(self, find_status: Callable[[], JobStatus | None]) -> None:
        """End the export. `find_status`: how the job ended, if it did. Waits for all targets together, but not long."""
        if not self._lines:
            return
        deadline = time.monotonic() + CLOSE_SECONDS
        status = find_status()
        for line in self._lines:
            line.end(status)
        for line in self._lines:
            line.close(deadline)
        self._lines = []


def _encode(point: MetricPoint, now_milliseconds: int) -> dict[str, Any]:
    return {
        "stage": point.stage,
        "split": point.split,
        "step": point.step,
        "at": now_milliseconds,
        "values": {name: value for name, value in point.values.items() if value is not None},
    }


class _Line:
    """Connection to one target: a bounded queue, and a thread that writes it to the target's process."""

    def __init__(self, target: Target, job_id: str, spec: dict[str, Any]) -> None:
        self._name = target.client
        self._job_id = job_id
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MAX_WAITING)
        self._has_news = threading.Condition()
        self._is_ending = False
        self._is_gone = False
        self._status: JobStatus | None = None
        self._num_dropped = 0
        self._process = subprocess.Popen(
            target.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # Ctrl-C ends the worker, which then ends this one
        )
        first = {"client": target.client, "options": target.options, "job_id": job_id, "spec": spec}
        self._thread = threading.Thread(target=self._work, args=(first,), name=f"export to {self._name}", daemon=True)
        self._thread.start()

    def add(self, points: Sequence[dict[str, Any]]) -> None:
        if self._is_gone:
            return
        with self._has_news:
            self._num_dropped += max(0, len(self._waiting) + len(points) - MAX_WAITING)
            self._waiting.extend(points)
            self._has_news.notify()

    def end(self, status: JobStatus | None) -> None:
        with self._has_news:
            self._is_ending = True
            self._status = status
            self._has_news.notify()

    def close(self, deadline: float) -> None:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        try:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _log.warning("%s: export to %s did not end in time; the rest is not there", self._job_id, self._name)
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._thread.join(1)
        if self._num_dropped:
            _log.warning("%s: %s was too slow for %d points", self._job_id, self._name, self._num_dropped)

    def _work(self, first: dict[str, Any]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            with stdin:
                self._send(stdin, first)
                while batch := self._take():
                    self._send(stdin, {"points": batch})
                self._send(stdin, {"status": self._status.value if self._status else None})
        except OSError:
            self._is_gone = True
            _log.warning("%s: the export to %s failed; the job continues without it", self._job_id, self._name)

    def _take(self) -> list[dict[str, Any]]:
        """Take from the queue; empty at the end."""
        with self._has_news:
            self._has_news.wait_for(lambda: self._waiting or self._is_ending)
            return [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]

    def _send(self, stdin: IO[bytes], message: dict[str, Any]) -> None:
        stdin.write(json.dumps(message).encode() + b"\n")
        stdin.flush()


def _environment() -> dict[str, str]:
    """Return the clients' environment: their keys in variables of their own, ours left out."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
