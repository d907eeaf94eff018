"""Thread that renews an attempt's lease and receives the user's requests."""

import logging
import threading
from types import TracebackType
from typing import Self

from core.domain.errors import DomainError, Fenced
from core.services.attempts import lifecycle
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.lifecycle import HeartbeatReply

_log = logging.getLogger(__name__)


class Heartbeat:
    """Renews the lease inside its context. A failing database is tried again at the next beat."""

    def __init__(self, claim: ClaimedJob) -> None:
        self._claim = claim
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {claim.job_id}", daemon=True)
        self.reply: HeartbeatReply | None = None
        """The newest answer."""
        self.is_fenced = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _beat(self) -> None:
        while True:
            try:
                self.reply = lifecycle.heartbeat(self._claim)
            except Fenced:
                self.is_fenced = not self._is_over.is_set()
                return
            except DomainError as error:
                _log.warning("heartbeat of %s failed: %s", self._claim.job_id, error.detail)
            except Exception:  # noqa: BLE001 - a beat that fails must not be the last one
                _log.exception("heartbeat of %s: unexpected error", self._claim.job_id)
            if self._is_over.wait(self._claim.backend.settings.heartbeat_seconds):
                return
