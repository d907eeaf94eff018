"""Presence of this worker: a row that says what it trains on, renewed for as long as the process lives."""

import logging
import socket
import threading
from pathlib import Path

from core.control_groups import memory_limit_bytes
from core.domain.errors import DomainError
from core.services.backend import Backend
from core.services.estimates import workers
from core.services.estimates.workers import WorkerFacts
from worker.device import Device

_CPU_INFO, _MEMORY_INFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_MAX_CLASS_CHARS = 255

_log = logging.getLogger(__name__)


class Presence:
    """Renews the row from a thread of its own; a failing database is tried again at the next beat."""

    def __init__(self, backend: Backend, device_class: str, *, on_cpu: bool) -> None:
        self._backend = backend
        self._facts = WorkerFacts(
            name=backend.settings.effective_worker_name,
            host=socket.gethostname(),
            device_class=device_class,
            trains=backend.settings.worker_lanes != "light",
            memory_bytes=_memory_bytes() if on_cpu else None,
        )
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and delete the row."""
        self._is_over.set()
        self._thread.join()
        try:
            workers.leave(self._backend, self._facts.name)
        except DomainError as error:
            _log.warning("this worker's row stays until it is old: %s", error.detail)

    def _beat(self) -> None:
        while True:
            try:
                workers.note(self._backend, self._facts)
            except DomainError as error:
                _log.warning("this worker's row is not renewed: %s", error.detail)
            except Exception:  # noqa: BLE001 - a beat that fails must not be the last one
                _log.exception("this worker's row is not renewed: unexpected error")
            if self._is_over.wait(min(self._backend.settings.heartbeat_seconds, workers.BEAT_SECONDS)):
                return


def device_class(device: Device, num_threads: int) -> str:
    """Return what jobs of equal work take alike on: the device, and on a CPU its model and threads."""
    if device.name != "cpu":
        return device.label[:_MAX_CLASS_CHARS]
    return f"{device.label}, {num_threads} threads, {_processor()}"[:_MAX_CLASS_CHARS]


def _processor() -> str:
    try:
        for line in _CPU_INFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return "unknown processor"


def _memory_bytes() -> int | None:
    """Return the memory that this process and its children may take together; None where nobody says."""
    limits = [limit for limit in (memory_limit_bytes(), _machine_bytes()) if limit is not None]
    return min(limits, default=None)


def _machine_bytes() -> int | None:
    try:
        facts = dict(line.split(":", 1) for line in _MEMORY_INFO.read_text().splitlines())
        return int(facts["MemTotal"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
