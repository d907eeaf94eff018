"""Named points at which a fault test may inject faults; inactive unless PREFTUNE_FAILPOINTS is set.

`PREFTUNE_FAILPOINTS="checkpoint.committed=kill@2;store.written=enospc@1+"`: at the second pass of the one point this
process is killed, from the first pass of the other on its disk is full. Actions: `kill`, or `kill:<file>` unless that
file is there already, which it then is; `enospc`, `eio`, `sleep:<seconds>`, and `note:<file>`, which appends the
point's name. The name `*` stands for every point.
Standard library only: trainers use it too.
"""

import errno
import os
import signal
import threading
import time
from dataclasses import dataclass, field

VARIABLE = "PREFTUNE_FAILPOINTS"
_ERRORS = {"enospc": errno.ENOSPC, "eio": errno.EIO}
_AFTERLIFE_SECONDS = 60


@dataclass
class Failpoint:
    """Fault of one point, and at which pass it occurs."""

    action: str
    argument: str = ""
    first: int = 1
    is_lasting: bool = False
    """Whether it also occurs at every later pass."""
    num_passes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_by(self, name: str) -> None:
        with self.lock:
            self.num_passes += 1
            is_due = self.num_passes == self.first or (self.is_lasting and self.num_passes > self.first)
        if is_due:
            self._strike(name)

    def _strike(self, name: str) -> None:
        if self.action in _ERRORS:
            number = _ERRORS[self.action]
            raise OSError(number, os.strerror(number), name)
        if self.action == "kill" and self._is_first_of_all():
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(_AFTERLIFE_SECONDS)  # this thread may live a moment longer, but must do nothing more
        elif self.action == "sleep":
            time.sleep(float(self.argument))
        elif self.action == "note":
            with open(self.argument, "a", encoding="utf-8") as notes:
                notes.write(name + "\n")

    def _is_first_of_all(self) -> bool:
        """Whether this process is the first of all that share the file."""
        try:
            if self.argument:
                os.close(os.open(self.argument, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True


def parse(text: str) -> dict[str, Failpoint]:
    """Parse failpoints; raises ValueError naming the part that is wrong."""
    points = {}
    for part in filter(None, text.split(";")):
        name, _, rest = part.partition("=")
        what, at, passes = rest.partition("@")
        action, _, argument = what.partition(":")
        if not name or action not in (*_ERRORS, "kill", "sleep", "note") or (at and not passes.rstrip("+").isdigit()):
            raise ValueError(f"{VARIABLE}: not a failpoint: {part!r}")
        points[name] = Failpoint(
            action=action,
            argument=argument,
            first=int(passes.rstrip("+")) if at else 1,
            is_lasting=passes.endswith("+") or action == "note",
        )
    return points


_points = parse(os.environ.get(VARIABLE, ""))


def arm(text: str) -> None:
    """Replace the environment's failpoints, for forked processes."""
    global _points
    _points = parse(text)


def reach(name: str) -> None:
    """Trigger the point of that name if it is due."""
    if not _points:
        return
    for known in (name, "*"):
        if known in _points:
            _points[known].pass_by(name)
