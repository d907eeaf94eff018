"""The runner of `preftune serve`: started when the API first connects to it, and again after it has ended."""

import logging
import secrets
import select
import socket
from collections.abc import Callable, Mapping

from cli.processes import COMMAND, Child
from core.settings import FILE_SUFFIX, PREFIX

_BACKLOG = 128
_SECRET = f"{PREFIX}RUNNER_SECRET"

_log = logging.getLogger(__name__)


class RunnerOnDemand:
    """Holds the socket that runners listen on: who connects while none runs waits for the one that is started."""

    def __init__(self, environment: Callable[[], Mapping[str, str]], lock_descriptor: int) -> None:
        self._environment = environment
        self._secret = secrets.token_hex(32)
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(_BACKLOG)
        descriptor = self._listener.fileno()
        self.child = Child(
            "runner",
            [*COMMAND, "runner", str(descriptor)],
            self._of_runner,
            inherited_fds=[lock_descriptor, descriptor],
            ends_by_itself=True,
        )

    @property
    def for_api(self) -> dict[str, str]:
        """Variables with which the API finds the runner."""
        return {
            f"{PREFIX}RUNNER_URL": f"http://127.0.0.1:{self._listener.getsockname()[1]}",
            _SECRET: self._secret,
        }

    def tick(self) -> None:
        """Start a runner where somebody waits for one; look whether one has died."""
        code = self.child.reap()
        if code is not None:
            _log.warning("the runner ended with %d and is started again when it is needed", code)
        if not self.child.is_running and select.select([self._listener], [], [], 0)[0]:
            self.child.start_if_due()

    def _of_runner(self) -> Mapping[str, str]:
        """Return the service's environment with the secret, whatever the operator set for other runners."""
        kept = {name: text for name, text in self._environment().items() if name != _SECRET + FILE_SUFFIX}
        return kept | {_SECRET: self._secret}
