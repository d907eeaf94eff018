"""Priority of a process's session beside others.

Linux shares processors between sessions first, where it groups by them; niceness then counts inside one only.
"""

import logging
from pathlib import Path

_log = logging.getLogger(__name__)


def lower_session(pid: int, niceness: int) -> None:
    """Lower the session of a process against others; without effect where the kernel does not group by sessions."""
    group = Path(f"/proc/{pid}/autogroup")
    try:
        if group.exists():
            group.write_text(f"{niceness}\n", encoding="ascii")
    except OSError as error:
        _log.warning("a process that answers has the priority of a training one (%s)", error.strerror)
