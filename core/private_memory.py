"""Protection of a process's memory and environment from other processes of the same user."""

import ctypes
import sys

import structlog

_PR_SET_DUMPABLE = 4

_log = structlog.get_logger(__name__)


def forbid_reading() -> None:
    """Deny `/proc/<pid>/environ`, `mem` and ptrace to processes of the same user, and core dumps.

    Linux only; elsewhere nothing happens. What the process starts is not affected: an exec allows reading again.
    """
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        _log.warning("process_is_readable", meaning="others of this user can read this process's secrets")
