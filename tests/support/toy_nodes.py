"""Workers that take jobs on several nodes, all on this machine, as threads of the test."""

from collections.abc import Sequence
from dataclasses import replace

from toy_jobs import TOY_COMMAND, TOY_GROUP_COMMAND, InProcessWorker

from core.services.backend import Backend
from core.settings import Settings
from worker.network import NodeNetwork

LOOPBACKS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


def node_worker(
    backend: Backend,
    number: int,
    command: Sequence[str] = TOY_COMMAND,
    group_command: Sequence[str] = TOY_GROUP_COMMAND,
) -> InProcessWorker:
    """A worker with a name and an address of its own."""
    known = backend.settings.model_dump(include=backend.settings.model_fields_set)
    own = replace(backend, settings=Settings(**known | {"worker_name": f"worker-{number}"}))
    network = NodeNetwork(address=LOOPBACKS[number], port=0, interface="lo")
    return InProcessWorker(own, command, network=network, group_command=group_command)
