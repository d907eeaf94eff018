"""`preftune serve`: API and worker as child processes, restarted when they die, ended together; a runner on demand."""

import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from pydantic import SecretStr

from api.server import check_binding
from cli.data_lock import DataDirLock
from cli.processes import COMMAND, Child
from cli.runner import RunnerOnDemand
from core import private_memory
from core.database.migrate import upgrade
from core.domain.errors import Unavailable
from core.services.backend import Backend, open_backend
from core.services.operations.sweep import release_leases_of
from core.settings import FILE_SUFFIX, PREFIX, PRIVATE_UMASK, Settings
from core.telemetry.logging import configure_logging
from preftune.cli.console import err, out

POLL_SECONDS = 1.0
"""Interval of a worker on the same machine, unless set."""
MAX_QUICK_DEATHS = 5
"""Deaths of a child that was never up, after which the service gives up: something is wrong with it."""
_LOCK_SECONDS = 15
_TICK_SECONDS = 0.1
_EXTRA_SECONDS = 15

_log = logging.getLogger(__name__)


def run_serve(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code. Raises SettingsError and DomainError."""
    check_binding(settings)
    os.umask(PRIVATE_UMASK)
    configure_logging(settings)
    private_memory.forbid_reading()
    notes = _note_signals()
    lock = DataDirLock.take(settings.data_dir, _LOCK_SECONDS)
    if lock is None:
        err.print(
            f"error: another service uses {settings.data_dir}; give this one a --data-dir of its own", markup=False
        )
        return 1
    try:
        if fault := _fault_of_port(settings):
            err.print(f"error: {fault}", markup=False)
            return 1
        upgrade(settings.effective_database_url)
        return _Service(_with_defaults(settings), lock, notes).run()
    finally:
        lock.release()


class _Service:
    def __init__(self, settings: Settings, lock: DataDirLock, notes: list[int]) -> None:
        self._settings = settings
        self._lock = lock
        self._notes = notes
        self._backend: Backend = open_backend(settings)
        self._worker_name = lock.last_worker()
        self._dead_workers = [self._worker_name] if self._worker_name else []
        self._is_ready = False
        self._children = [
            Child("api", [*COMMAND, "api"], self._api_environment, inherited_fds=[lock.descriptor]),
            Child("worker", [*COMMAND, "worker"], self._worker_environment, inherited_fds=[lock.descriptor]),
        ]
        self._runner = None if settings.runner_url else RunnerOnDemand(self._base_environment, lock.descriptor)

    def run(self) -> int:
        code = 0
        try:
            while not self._notes and code == 0:
                code = self._tick()
                time.sleep(_TICK_SECONDS)
        finally:
            self._stop()
            self._free_leases()
            self._backend.close()
        return code

    def _tick(self) -> int:
        """Run one round; return an exit code other than 0 when there is no point in continuing."""
        self._free_leases()
        if self._runner is not None:
            self._runner.tick()
        for child in self._children:
            child.start_if_due()
            self._look_after(child)
            if child.num_quick_deaths >= MAX_QUICK_DEATHS and not self._is_ready:
                err.print(f"error: the {child.name} does not start; its messages are above", markup=False)
                return 1
        if not self._is_ready and self._answers():
            self._is_ready = True
            out.print(f"Preftune is ready: {self._url}   (Ctrl-C stops it)", markup=False)
            if self._settings.api_key is None:
                where = f"--url {self._url} --data-dir {self._settings.data_dir}"
                out.print(f"If the dashboard asks for a key: preftune open {where}", markup=False, soft_wrap=True)
        return 0

    def _look_after(self, child: Child) -> None:
        code = child.reap()
        if code is None:
            return
        _log.warning("the %s ended with %d and is restarted", child.name, code)
        if child.name == "worker" and self._worker_name is not None:
            self._dead_workers.append(self._worker_name)

    def _free_leases(self) -> None:
        """Release the leases of workers known to be dead, so that their jobs need not wait for expiry."""
        while self._dead_workers:
            try:
                num_freed = release_leases_of(self._backend, self._dead_workers[0])
            except Unavailable as error:
                _log.warning("leases of a dead worker not freed yet: %s", error.detail)
                return
            if num_freed:
                _log.info("freed %d leases of a worker that died", num_freed)
            self._dead_workers.pop(0)

    def _stop(self) -> None:
        """Send SIGTERM to both; SIGKILL at a second signal or timeout. Trainers end with their worker."""
        num_notes = len(self._notes)
        deadline = time.monotonic() + self._settings.stop_grace_seconds + _EXTRA_SECONDS
        children = [*self._children, *([] if self._runner is None else [self._runner.child])]
        for child in children:
            child.send(signal.SIGTERM)
        while any(child.is_running for child in children):
            if len(self._notes) > num_notes or time.monotonic() > deadline:
                for child in children:
                    child.send(signal.SIGKILL)
                num_notes, deadline = len(self._notes), time.monotonic() + _EXTRA_SECONDS
            time.sleep(_TICK_SECONDS)
        if self._worker_name is not None:
            self._dead_workers.append(self._worker_name)

    def _base_environment(self) -> Mapping[str, str]:
        return _environment(self._settings)

    def _api_environment(self) -> Mapping[str, str]:
        return _environment(self._settings) | ({} if self._runner is None else self._runner.for_api)

    def _worker_environment(self) -> Mapping[str, str]:
        """Return an environment with a new worker name for each start, so that old leases are not its own."""
        base = self._settings.worker_name or socket.gethostname()
        self._worker_name = f"{base}-{uuid.uuid4().hex[:8]}"
        self._lock.remember_worker(self._worker_name)
        return _environment(self._settings) | {f"{PREFIX}WORKER_NAME": self._worker_name}

    @property
    def _url(self) -> str:
        host = self._settings.host
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{shown}:{self._settings.port}"

    def _answers(self) -> bool:
        try:
            with build_opener(ProxyHandler({})).open(f"{self._url}/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


def _note_signals() -> list[int]:
    """Install handlers that only record the signal."""
    notes: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: notes.append(received))
    return notes


def _fault_of_port(settings: Settings) -> str | None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another --port"
    return None


def _with_defaults(settings: Settings) -> Settings:
    """Add defaults: a free port for 0, and frequent polling by a worker on the same machine."""
    values: dict[str, Any] = {}
    if settings.port == 0:
        with socket.socket() as probe:
            probe.bind((settings.host, 0))
            values["port"] = probe.getsockname()[1]
    if "poll_seconds" not in settings.model_fields_set:
        values["poll_seconds"] = POLL_SECONDS
    return settings.model_copy(update=values) if values else settings


def _environment(settings: Settings) -> dict[str, str]:
    """Return our environment with the options and defaults of `serve`."""
    chosen = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is not None:
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            chosen[f"{PREFIX}{name.upper()}"] = text
    # What came from a file has become a value.
    return {name: text for name, text in os.environ.items() if name.removesuffix(FILE_SUFFIX) not in chosen} | chosen
