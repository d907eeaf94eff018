"""A rank's side of its launch: it ends with the agent that started it, and on a SIGTERM of that agent alone.

The agent ends all ranks when one fails. A rank that waits in a collective operation cannot run a signal handler, so a
thread takes the signal. Service managers send SIGTERM to every process of a worker: from those it is ignored, since
the worker asks the trainer to stop at a step boundary.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from core.children.parent import die_with_parent

AGENT_VARIABLE = "PREFTUNE_AGENT_PID"
"""In a rank's environment: process id of its agent."""
REPORT = "report"
"""Key of a rank's own words in its error file."""
ENDED_BY_AGENT = 128 + signal.SIGTERM
_ORPHANED = 70
_LOOK_SECONDS = 1.0


def launched_rank() -> int | None:
    """Return the rank that an agent gave to this process; None for a process that none launched."""
    return int(os.environ["RANK"]) if AGENT_VARIABLE in os.environ else None


def leads_node() -> bool:
    """Whether this launched process is the first of its node, which alone speaks to the node's supervisor."""
    return os.environ["LOCAL_RANK"] == "0"


def obey_agent() -> None:
    """Start to follow the agent that launched this process; without one do nothing. To be called before imports.

    Standard input and output, which all ranks of a node share, are left to its first.
    """
    if launched_rank() is None:
        return
    agent = int(os.environ[AGENT_VARIABLE])
    die_with_parent()
    if not leads_node():
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
    if sys.platform.startswith("linux"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in all threads that are still to come
    threading.Thread(target=_follow, args=(agent,), name="agent", daemon=True).start()


def report_failure(error: BaseException, report: Sequence[str]) -> None:
    """Leave a rank's report on its failure to the agent, in the form of torch's error files."""
    path = Path(os.environ["TORCHELASTIC_ERROR_FILE"])
    callstack = "".join(traceback.format_exception(error))
    facts = {"py_callstack": callstack, "timestamp": str(int(time.time()))}
    text = json.dumps({"message": {"message": repr(error), "extraInfo": facts}, REPORT: list(report)})
    aside = path.with_suffix(".aside")
    aside.write_text(text, encoding="utf-8")
    aside.rename(path)  # the agent reads it whole or not at all


def leave(code: int) -> NoReturn:
    """End a rank at once, its work and its words being done; to be called last.

    Gloo's threads let go of the last operation's tensors when they come to it. One that does so while the interpreter
    ends aborts the process, and the agent takes the run for failed (torch 2.13, `ProcessGroupGloo::runLoop`).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _follow(agent: int) -> None:
    while os.getppid() == agent:
        if _is_terminated_by(agent):
            os._exit(ENDED_BY_AGENT)
    os._exit(_ORPHANED)


def _is_terminated_by(agent: int) -> bool:
    """Wait for a moment; return whether the agent sent SIGTERM meanwhile."""
    if not sys.platform.startswith("linux"):  # the signal's default action ends the process there
        time.sleep(_LOOK_SECONDS)
        return False
    found = signal.sigtimedwait({signal.SIGTERM}, _LOOK_SECONDS)
    return found is not None and found.si_pid == agent
