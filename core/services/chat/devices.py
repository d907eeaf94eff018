"""Whether training takes place where a runner would compute."""

from core.database.repositories import roster
from core.services.backend import Backend

_MAX_JOBS = 1000
_CPU_LABEL = "CPU"


def is_training(backend: Backend, host: str, device: str) -> bool:
    """Tell whether a job is running on this host's CPU, or on any of its GPUs. Raises Unavailable."""
    running = backend.database.read(lambda session: list(roster.list_running(session, _MAX_JOBS)))
    wants_cpu = device == "cpu"
    return any(attempt.host == host and (attempt.device == _CPU_LABEL) is wants_cpu for _, attempt in running)
