"""Start of a run's ranks by torch's elastic agent: one process per device, all ended when one fails, none restarted.

Whether a run is tried again is decided by whoever launched it. The nodes of a run meet in a store that the first node's
agent holds. It listens on one address only, since torch's store knows no sign-in.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous.api import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo

from core.children.launched import AGENT_VARIABLE, REPORT
from core.training.meeting import Listeners, Place, meet

_HANDLED_SIGNALS = "SIGINT,SIGHUP,SIGQUIT"
"""Signals at which the agent ends all ranks; not SIGTERM, since the ranks are asked to stop at a step boundary."""


@dataclass(frozen=True, kw_only=True)
class Group(Place):
    """The processes of one run on all its nodes, and where they meet."""

    num_ranks: int
    """Ranks on this node."""


@dataclass(frozen=True, kw_only=True)
class RankFailure:
    """A rank that did not end well."""

    rank: int
    returncode: int
    """Exit status; negative for a signal."""
    seen_at: int
    """Time of the failure, in seconds since the epoch."""
    report: tuple[str, ...] | None
    """What it reported itself (`core.children.launched.report_failure`)."""


def launch(group: Group, command: Sequence[str], folder: Path, listeners: Listeners | None = None) -> list[RankFailure]:
    """Run `command` once for each rank of this node until all ended well or one failed; return the failures.

    To be called in the main thread. The ranks share the standard streams. Files of the agent go below `folder`.

    Args:
        listeners: hear of the meeting of several nodes, and of one that is lost later.

    Raises:
        NodesUnreachable: the nodes did not meet.
    """
    os.environ[AGENT_VARIABLE] = str(os.getpid())
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = _HANDLED_SIGNALS
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    spec = WorkerSpec(
        role="trainer",
        local_world_size=group.num_ranks,
        rdzv_handler=_Meeting(group, listeners or Listeners()),
        entrypoint=command[0],
        args=tuple(command[1:]),
        max_restarts=0,
        monitor_interval=0.1,
    )
    result = LocalElasticAgent(spec, logs_specs=DefaultLogsSpecs(log_dir=str(folder))).run()
    return [
        RankFailure(
            rank=rank,
            returncode=failure.exitcode,
            seen_at=failure.timestamp,
            report=_report_of(failure.error_file_data),
        )
        for rank, failure in result.failures.items()
    ]


def _report_of(data: Mapping[str, object]) -> tuple[str, ...] | None:
    found = data.get(REPORT)
    return tuple(map(str, found)) if isinstance(found, list) else None


class _Meeting(RendezvousHandler):
    """Rendezvous of a fixed number of nodes, each of which knows its place."""

    def __init__(self, group: Group, listeners: Listeners) -> None:
        self._group = group
        self._listeners = listeners

    def get_backend(self) -> str:
        return "preftune"

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        group = self._group
        store = self._store = meet(group, self._listeners)
        place = RendezvousStoreInfo(group.address, store.port)
        return RendezvousInfo(PrefixStore(group.run_id, store), group.node, group.num_nodes, place)

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """Do nothing: nobody can join later."""

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._group.run_id

    def shutdown(self) -> bool:
        return True
