"""Child process that is restarted when it dies, with growing pauses if it keeps dying."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

COMMAND = (sys.executable, "-P", "-m", "cli.child")
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
"""A child that lived so long has started well: the next pause is the first again."""


class Child:
    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Callable[[], Mapping[str, str]],
        *,
        inherited_fds: Sequence[int],
        ends_by_itself: bool = False,
    ) -> None:
        """`ends_by_itself`: code 0 says that it had nothing more to do, and no pause follows."""
        self.name = name
        self._command = command
        self._environment = environment
        self._inherited_fds = tuple(inherited_fds)
        self._ends_by_itself = ends_by_itself
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._starts_again_at = 0.0
        self.num_quick_deaths = 0
        """In a row."""

    def start_if_due(self) -> bool:
        """Start the child if it is due; return whether it was started now."""
        if self._process is not None or time.monotonic() < self._starts_again_at:
            return False
        self._process = subprocess.Popen(
            self._command,
            env=dict(self._environment()),
            stdin=subprocess.PIPE,  # its end tells the child that we are gone
            start_new_session=True,  # Ctrl-C in the terminal is for us to pass on
            pass_fds=self._inherited_fds,
        )
        self._started_at = time.monotonic()
        return True

    def reap(self) -> int | None:
        """Return the exit code of a newly died child, which is to start again after a pause."""
        code = None if self._process is None else self._process.poll()
        if self._process is None or code is None:
            return None
        self._close()
        if self._ends_by_itself and code == 0:
            self.num_quick_deaths, self._starts_again_at = 0, 0.0
            return None
        lived = time.monotonic() - self._started_at
        self.num_quick_deaths = 0 if lived > HEALTHY_SECONDS else self.num_quick_deaths + 1
        pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** max(0, self.num_quick_deaths - 1))
        self._starts_again_at = time.monotonic() + pause
        return code

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # of a process that was reaped it knows

    def _close(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None
