"""Agent process that starts a trainer for each device of a job: `worker.processes.start device_group <work directory>`.

Its standard streams are those of its first trainer, the only one that speaks to the supervisor while training goes on.
On several nodes each has an agent; they meet in the store of the first. A rank that fails leaves its last words to this
process, which says the first cause once all ranks have ended, or ends by the signal that killed one.
"""

import os
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from core.children.launched import ENDED_BY_AGENT
from core.children.parent import die_with_parent
from core.domain.jobs.failure_codes import FailureCode
from core.domain.trainer_protocol import (
    ASSIGNMENT_FILE,
    Assignment,
    Failed,
    Listening,
    decode_trainer_message,
    encode_message,
)
from core.training.launcher import Group, RankFailure, launch
from core.training.meeting import LOOPBACK, Listeners, NodesUnreachable
from worker.processes.start import command_of

_CONSEQUENCES = frozenset({ENDED_BY_AGENT, -signal.SIGTERM})
"""Ends of ranks that the agent ended because another one had failed."""


def main(work_dir: Path) -> int:
    """Run the trainers of a job; return 0 when all ended as they should."""
    die_with_parent()
    assignment = Assignment.load((work_dir / ASSIGNMENT_FILE).read_text(encoding="utf-8"))
    group = group_of(assignment)
    if assignment.interface:
        os.environ |= {"GLOO_SOCKET_IFNAME": assignment.interface, "NCCL_SOCKET_IFNAME": assignment.interface}
    command = [*command_of("trainer"), str(work_dir)]
    listeners = Listeners(on_listening=tell_port, on_silence=end_with_silence) if group.num_nodes > 1 else None
    try:
        failures = launch(group, command, work_dir / "tmp", listeners)
    except NodesUnreachable as error:
        tell_unreachable(str(error))
        return 1
    return tell(first_cause(failures)) if failures else 0


def group_of(assignment: Assignment) -> Group:
    """Return the processes of this node, and where they meet those of the others."""
    token = assignment.run_token or secrets.token_hex(16)
    return Group(
        run_id=f"{assignment.job_id}-{assignment.attempt}-{token}",
        num_ranks=assignment.num_devices,
        num_nodes=assignment.num_nodes,
        node=assignment.node,
        address=assignment.meeting_address or LOOPBACK,
        port=assignment.meeting_port,
        own_address=assignment.own_address or LOOPBACK,
        silence_seconds=assignment.silence_seconds,
    )


def end_with_silence(what: str) -> NoReturn:
    """End this node's part, since another node is lost: ranks that wait for it would wait for half an hour."""
    tell_unreachable(what)
    os._exit(1)  # the ranks die with this process


def tell_unreachable(what: str) -> None:
    os.write(1, encode_message(Failed(code=FailureCode.NODES_UNREACHABLE, detail=what)))


def tell_port(port: int) -> None:
    """Tell the supervisor at which port the other nodes meet this one."""
    os.write(1, encode_message(Listening(port=port)))


def first_cause(failures: Sequence[RankFailure]) -> RankFailure:
    """Choose the failure that the others followed from.

    A typed failure is a cause, whatever was seen first. A broken connection is what the others see of a rank that was
    killed or that crashed, and often before its death is noticed.
    """
    return min(failures, key=lambda failure: (_rank_of_kind(failure), failure.seen_at, failure.rank))


def tell(cause: RankFailure) -> int:
    """Pass the last words of the rank on, or die of the signal that it died of; return the exit code."""
    sys.stderr.write(f"The trainer of rank {cause.rank} ended first: {_describe(cause)}.\n")
    if cause.report is not None:
        for line in cause.report:
            os.write(1, line.encode())
        return 1
    if cause.returncode < 0:
        with suppress(OSError):  # of SIGKILL there is nothing to reset
            signal.signal(-cause.returncode, signal.SIG_DFL)
        os.kill(os.getpid(), -cause.returncode)
    return cause.returncode


def _rank_of_kind(failure: RankFailure) -> int:
    if failure.report is None:
        return 3 if failure.returncode in _CONSEQUENCES else 1
    words = [decode_trainer_message(line.encode()) for line in failure.report]
    is_typed = any(isinstance(word, Failed) and (word.recurs or word.code != FailureCode.INTERNAL) for word in words)
    return 0 if is_typed else 2


def _describe(failure: RankFailure) -> str:
    if failure.returncode >= 0:
        return f"exit status {failure.returncode}"
    return signal.Signals(-failure.returncode).name
