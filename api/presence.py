"""Presence of this API process among the workers, with its clock and disks."""

import os
import socket
import uuid

from core.services.backend import Backend
from core.services.estimates.workers import WorkerFacts
from core.services.operations.presence import Description, Presence


def presence_of(backend: Backend) -> Presence:
    host = socket.gethostname()
    name = f"api-{host}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    facts = WorkerFacts(name=name, host=host, device_class="", trains=False, memory_bytes=None)
    return Presence(backend, facts, Description(kind="api"))
