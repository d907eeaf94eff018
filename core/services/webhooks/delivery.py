"""Delivery of webhooks: takes what is due from the outbox, sends it signed, and tells the outbox what came of it.

Any number of API processes may deliver: a lease says who is at an event. A process that dies leaves a lease that runs
out, so the event goes out once more; receivers know it by `webhook-id`.
"""

import asyncio
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import httpx
import structlog
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import jobs as job_rows
from core.database.repositories import owned
from core.database.repositories import webhooks as webhook_rows
from core.database.repositories.events import SWEEPER, EventDraft, append_event
from core.database.tables.webhooks import WebhookDelivery, WebhookEndpoint
from core.domain.errors import DomainError
from core.domain.webhook_events import MAX_AGE_SECONDS, delay_seconds, signature
from core.services.backend import Backend
from core.services.ids import new_suffix
from core.services.webhooks import addresses, endpoints
from core.services.webhooks.addresses import AllowedHosts

NUM_THREADS = 12
MAX_OF_ENDPOINT = 2
"""Deliveries to one endpoint at a time, so that a slow one does not hold all threads."""
TRY_SECONDS = 10.0
"""Time without progress after which a try is given up."""
MAX_TRY_SECONDS = 20.0
"""Limit of a whole try, but for the resolver's own time."""
LEASE_SECONDS = 60.0
KEPT_SECONDS = 7 * 24 * 3600.0
"""For the log of deliveries."""
PAUSE_AFTER_FAILURES = 10
MAX_PAUSE_SECONDS = 900.0
_CANDIDATES = 64
_TIDY_SECONDS = 3600.0
_MAX_ERROR_CHARS = 200

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Message:
    """One event on its way, free of the database."""

    delivery_id: str
    endpoint_id: str
    token: str
    url: str
    body: bytes
    secrets: list[str]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one try ended."""

    status: int | None
    error: str | None

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class WebhookDeliverer:
    """Background threads that deliver until stopped. One per API process."""

    def __init__(self, backend: Backend, delay: Callable[[int], float] = delay_seconds) -> None:
        self._backend = backend
        self._delay = delay
        self._allowed = AllowedHosts.parse(backend.settings.webhook_allowed_hosts)
        self._wake = threading.Event()
        self._is_stopping = False
        self._tidy_at = 0.0
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()
        """Tries that are under way, by endpoint."""
        self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 5) -> None:
        self._is_stopping = True
        self._wake.set()
        self._thread.join(timeout_seconds)

    def deliver_due(self, pool: ThreadPoolExecutor) -> int:
        """Try what is due once, to the end; return how much that was. Raises Unavailable."""
        tries = self._begin(pool)
        for each in tries:
            each.result()
        return len(tries)

    def send(self, message: Message) -> Outcome:
        """Make one try, within a bounded time; what the receiver answers beyond its status is not read."""
        try:
            target = addresses.resolve(message.url, self._allowed)
        except DomainError as error:
            return Outcome(status=None, error=error.detail)
        except OSError:
            return Outcome(status=None, error="The host name has no address.")
        timestamp = int(time.time())
        host = f"[{target.address}]" if ":" in target.address else target.address
        headers = {
            "Host": addresses.host_header(target),
            "Content-Type": "application/json",
            "User-Agent": "preftune-webhooks",
            "webhook-id": message.delivery_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(message.secrets, message.delivery_id, timestamp, message.body),
        }
        url = f"{target.scheme}://{host}:{target.port}{target.path}"
        try:
            status = asyncio.run(_post(url, message.body, headers, target.host))
        except TimeoutError:
            return Outcome(status=None, error=f"No answer within {MAX_TRY_SECONDS:g} s.")
        except (httpx.HTTPError, OSError, ssl.SSLError) as error:
            return Outcome(status=None, error=f"No answer: {type(error).__name__}.")
        return Outcome(status=status, error=_error_of(status))

    def _work(self) -> None:
        with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="webhook") as pool:
            while not self._is_stopping:
                num_begun = 0
                try:
                    num_begun = len(self._begin(pool))
                    self._tidy()
                except Exception as error:  # noqa: BLE001 - the thread must outlive whatever one pass meets
                    _log.warning("webhooks_failed", error=type(error).__name__)
                # A try that ends wakes it: then there is a free thread, and perhaps the next event of its job.
                self._wake.wait(0.05 if num_begun else min(2.0, self._backend.settings.sweep_seconds))
                self._wake.clear()

    def _begin(self, pool: ThreadPoolExecutor) -> "list[Future[None]]":
        """Take what is due and start a try of each, as far as threads are free."""
        with self._lock:
            busy = Counter(self._busy)
        num_free = NUM_THREADS - busy.total()
        if num_free <= 0:
            return []
        due = self._backend.database.read(lambda session: webhook_rows.list_due(session, _CANDIDATES, MAX_OF_ENDPOINT))
        chosen: list[str] = []
        for delivery_id, endpoint_id in due:
            if busy[endpoint_id] < MAX_OF_ENDPOINT and len(chosen) < num_free:
                busy[endpoint_id] += 1
                chosen.append(delivery_id)
        if not chosen:
            return []
        token = new_suffix()
        messages = self._backend.database.write(lambda session: self._lease(session, chosen, token))
        with self._lock:
            self._busy.update(message.endpoint_id for message in messages)
        return [pool.submit(self._try, message) for message in messages]

    def _try(self, message: Message) -> None:
        """Make one try and write down how it ended; an outage leaves the lease to run out."""
        try:
            outcome = self.send(message)
            self._backend.database.write(partial(self._conclude, message=message, outcome=outcome))
        except DomainError as error:
            _log.warning("webhook_not_concluded", code=error.code)
        finally:
            with self._lock:
                self._busy[message.endpoint_id] -= 1
            self._wake.set()

    def _lease(self, session: Session, chosen: list[str], token: str) -> list[Message]:
        rows = webhook_rows.lease(session, chosen, token, LEASE_SECONDS)
        found = {row.endpoint_id: owned.find(session, WebhookEndpoint, row.project_id, row.endpoint_id) for row in rows}
        pairs = [(row, endpoint) for row in rows if (endpoint := found[row.endpoint_id]) is not None]
        return [self.message_of(session, row, endpoint, token) for row, endpoint in pairs]

    def message_of(self, session: Session, row: WebhookDelivery, endpoint: WebhookEndpoint, token: str) -> Message:
        """Return what is sent to the endpoint, with the secrets that sign now."""
        has_previous = endpoint.previous_until is not None and webhook_rows.is_ahead(session, endpoint)
        secrets = endpoints.signing_secrets(self._backend.settings, endpoint, has_previous=has_previous)
        return Message(
            delivery_id=row.id,
            endpoint_id=endpoint.id,
            token=token,
            url=endpoint.url,
            body=body_of(row),
            secrets=secrets,
        )

    def _conclude(self, session: Session, *, message: Message, outcome: Outcome) -> None:
        endpoint = owned.lock(session, WebhookEndpoint, message.endpoint_id)
        row = webhook_rows.lock_leased(session, message.delivery_id, message.token)
        if row is None:
            return  # the endpoint is gone, or another process has taken the event over
        row.num_tries += 1
        row.lease_token = row.lease_expires_at = None
        row.last_status = outcome.status
        row.last_error = outcome.error[:_MAX_ERROR_CHARS] if outcome.error else None
        if outcome.is_delivered:
            row.delivered_at = database_now()
            if endpoint is not None:
                endpoint.num_failures, endpoint.paused_until = 0, None
                endpoint.last_success_at = database_now()
            return
        row.next_try_at = database_after(self._delay(row.num_tries))
        if endpoint is not None:
            self._note_failure(session, row, endpoint)

    def _note_failure(self, session: Session, row: WebhookDelivery, endpoint: WebhookEndpoint) -> None:
        endpoint.num_failures += 1
        beyond = endpoint.num_failures - PAUSE_AFTER_FAILURES
        if beyond >= 0:
            pause = min(MAX_PAUSE_SECONDS, self._delay(1) * 2 ** min(beyond, 16))
            endpoint.paused_until = database_after(pause)
        if not webhook_rows.is_too_old(session, endpoint, row, MAX_AGE_SECONDS):
            return
        row.given_up_at = database_now()
        if webhook_rows.has_taken_since(session, endpoint, row):
            return  # it takes others: this event alone is not for it
        endpoint.disabled_reason = f"Nothing was taken for a day. {row.last_error or ''}".strip()
        job = job_rows.lock_job(session, row.job_id)
        if job is not None:
            message = f"The webhook {endpoint.id} is disabled: {endpoint.disabled_reason}"
            draft = EventDraft(
                kind="webhook_disabled", message=message, level="warning", actor=SWEEPER, token=f"disabled {row.id}"
            )
            append_event(session, job, draft)

    def _tidy(self) -> None:
        if time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + _TIDY_SECONDS
            self._backend.database.write(lambda session: webhook_rows.delete_old(session, KEPT_SECONDS))


def body_of(row: WebhookDelivery) -> bytes:
    """Return the event as it is sent: the same bytes at every try."""
    event = {
        "id": row.id,
        "object": "event",
        "created_at": int(row.created_at.timestamp()),
        "type": row.type,
        **row.body,
    }
    return json.dumps(event, separators=(",", ":")).encode()


def ping(backend: Backend, project_id: str, endpoint_id: str, event_type: str) -> Outcome:
    """Send a sample event now, apart from the outbox. Raises WebhookNotFound, InvalidRequest for an unknown type."""
    endpoints.check_types([event_type])
    deliverer = WebhookDeliverer(backend)

    def work(session: Session) -> Message:
        endpoint = endpoints.find(session, project_id, endpoint_id)
        sample = WebhookDelivery(
            id=f"evt_test_{new_suffix()}",
            type=event_type,
            body={"data": {"id": "job_test"}},
            created_at=endpoint.created_at,
        )
        return deliverer.message_of(session, sample, endpoint, "")

    return deliverer.send(backend.database.read(work))


async def _post(url: str, body: bytes, headers: dict[str, str], host: str) -> int:
    """Send and return the status. Raises TimeoutError, httpx.HTTPError, OSError."""
    async with (
        asyncio.timeout(MAX_TRY_SECONDS),
        httpx.AsyncClient(timeout=TRY_SECONDS, follow_redirects=False, trust_env=False) as client,
        client.stream("POST", url, content=body, headers=headers, extensions={"sni_hostname": host}) as response,
    ):
        return response.status_code


def _error_of(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"It answered {status}; redirects are not followed."
    return f"It answered {status}."
