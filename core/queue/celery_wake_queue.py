"""Sender of wake-ups: one background thread sends them, so that no request waits for a broker."""

import logging
import threading
import time

from celery import Celery
from kombu import Queue

from core import outages
from core.domain.errors import Unavailable
from core.queue.celery_app import QUEUE, WAKE_TASK, make_celery
from core.queue.wake_queue import NullWakeQueue, WakeQueue
from core.settings import Settings

_PAUSE_AFTER_FAILURE_SECONDS = 1.0
_CHECK_SECONDS = 3
_CHECK_KEY = "preftune:check"
_CHECK_KEY_SECONDS = 60

_log = logging.getLogger(__name__)


class BrokerUnavailable(Unavailable):
    code = "broker-unavailable"
    title = "The broker does not answer"


def open_queue(settings: Settings) -> WakeQueue:
    """Open the queue; raises SettingsError for an unknown broker. The broker need not be up."""
    if settings.effective_broker_url == "none":
        return NullWakeQueue()
    return CeleryWakeQueue(make_celery(settings))


class CeleryWakeQueue:
    """Queue in which at most one wake-up waits: another would ask for the same."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._is_wanted = threading.Event()
        self._start_lock = threading.Lock()
        self._sender: threading.Thread | None = None

    def wake(self) -> None:
        self._is_wanted.set()
        with self._start_lock:
            if self._sender is None or not self._sender.is_alive():  # not at construction: processes fork
                self._sender = threading.Thread(target=self._send_all, name="wake-up sender", daemon=True)
                self._sender.start()

    def check(self) -> None:
        """Check the broker without blocking on one that accepts connections and never answers."""
        faults: list[Exception | None] = []
        probe = threading.Thread(target=lambda: faults.append(self._fault()), name="broker check", daemon=True)
        probe.start()
        probe.join(_CHECK_SECONDS)
        fault = faults[0] if faults else TimeoutError(f"no answer within {_CHECK_SECONDS} s")
        if fault is not None:
            outages.note("broker", fault)
            raise BrokerUnavailable("The broker does not answer; queued jobs still start, found by polling.") from fault

    def _send_all(self) -> None:
        while True:
            self._is_wanted.wait()
            self._is_wanted.clear()
            if not self._send():
                time.sleep(_PAUSE_AFTER_FAILURE_SECONDS)

    def _send(self) -> bool:
        try:
            self._app.send_task(WAKE_TASK, queue=QUEUE, ignore_result=True)
        except Exception as error:  # noqa: BLE001 - drivers of brokers raise what they like, and this thread must live
            # Not sent again: the sweeper asks for it, and idle workers poll.
            _log.warning("a wake-up was not sent: %s", outages.reason_of(error))
            return False
        return True

    def _fault(self) -> Exception | None:
        """Return why no message could be sent, also by a replica or a full server, which answer but store nothing."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=_CHECK_SECONDS)
                channel = connection.default_channel
                Queue(QUEUE, channel=channel).queue_declare(passive=False)
                if hasattr(channel, "client"):  # Redis
                    channel.client.set(_CHECK_KEY, "1", ex=_CHECK_KEY_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, the broker is not usable
            return error
        return None
