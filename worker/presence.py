"""Facts of this worker, which its presence tells: what it trains on, and with how much memory."""

import socket
from pathlib import Path

from core.control_groups import memory_limit_bytes
from core.services.backend import Backend
from core.services.estimates.workers import WorkerFacts
from core.services.operations.presence import Description, Presence
from worker.device import Device

_CPU_INFO, _MEMORY_INFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_MAX_CLASS_CHARS = 255


def presence_of(backend: Backend, device: Device, name_of_class: str) -> Presence:
    """Return the presence of this worker on its device."""
    settings = backend.settings
    facts = WorkerFacts(
        name=settings.effective_worker_name,
        host=socket.gethostname(),
        device_class=name_of_class,
        trains=settings.worker_lanes != "light",
        memory_bytes=_memory_bytes() if device.name == "cpu" else None,
    )
    description = Description(
        kind="worker",
        num_devices=device.count,
        lanes=settings.worker_lanes,
        takes_nodes=facts.trains and settings.node_address is not None,
    )
    return Presence(backend, facts, description)


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
