"""Serving of the API with uvicorn, hardened: bounded connections, bounded waits, no server banner."""

import asyncio
import gc
import os
import resource
import signal
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.access.authentication import CONNECTION, is_loopback
from api.access.proxies import parse_networks
from api.app import MIN_KEY_CHARS, create_app
from api.connections import Connections
from api.downloads import ABORT
from api.live.stream import AT_SHUTDOWN
from core import confinement, private_memory
from core.settings import PRIVATE_UMASK, Settings, SettingsError
from core.telemetry import tracing
from core.telemetry.logging import configure_logging

MAX_HEADER_BYTES = 32 * 1024
HEADER_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 30
MAX_FILES = 8192
SHUTDOWN_SECONDS = 10


class TimedH11Protocol(H11Protocol):
    """Closes a connection whose request head does not arrive, for which uvicorn would wait for ever.

    Event streams have no end of their own: they are told when the server stops, and may drop a client that takes
    nothing.
    """

    header_seconds = HEADER_SECONDS
    known: Connections | None = None
    """Connections of the process, set for each server."""
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, ABORT: transport.abort, CONNECTION: {}}
        self._header_timer = self.loop.call_later(self.header_seconds, self._give_up)
        if self.known is not None:
            self.known.opened(self, self.client[0] if self.client else "")

    @property
    def is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def close(self) -> None:
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.is_idle:
            self._stop_timer()
        elif self._header_timer is None and self.timeout_keep_alive_task is None:
            self._header_timer = self.loop.call_later(self.header_seconds, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self.known is not None:
            self.known.closed(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        super().shutdown()
        end_stream = self.scope["state"].get(AT_SHUTDOWN) if self.cycle and not self.cycle.response_complete else None
        if end_stream is not None:
            end_stream()

    def _give_up(self) -> None:
        self._header_timer = None
        if self.is_idle and not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def run(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code. Raises SettingsError."""
    check_binding(settings)
    os.umask(PRIVATE_UMASK)
    _allow_files()
    configure_logging(settings)
    private_memory.forbid_reading()
    confinement.start(is_wanted=settings.confine_children)
    tracing.start(settings, "preftune-api")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    server = uvicorn.Server(uvicorn_config(settings))
    # What was made up to here stays: to search it for garbage would stop all requests for 0.1 s each time.
    gc.collect()
    gc.freeze()
    server.run()
    return 0 if server.started else 1


def _allow_files() -> None:
    """Raise the soft limit of open files: connections and files of the store come to more than the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _end(_number: int, _frame: object) -> None:
    """Handle the signals that uvicorn raises again: before the server is up, and after it has shut down."""
    raise SystemExit(0)


def check_binding(settings: Settings) -> None:
    """Raise SettingsError when the API would be open to a network without a key."""
    if settings.api_key is None and not is_loopback(settings.host):
        raise SettingsError(
            f"PREFTUNE_HOST: {settings.host} can be reached from other machines, which needs a key; "
            "set PREFTUNE_API_KEY, or listen on 127.0.0.1"
        )
    is_short = any(len(key) < MIN_KEY_CHARS for key in settings.bootstrap_keys)
    if is_short and not is_loopback(settings.host):
        raise SettingsError(
            f"PREFTUNE_API_KEY: a key that other machines can try needs at least {MIN_KEY_CHARS} characters; "
            "`openssl rand -hex 32` makes one"
        )


def uvicorn_config(settings: Settings) -> uvicorn.Config:
    known = Connections(settings.max_share, parse_networks(settings.trusted_proxies))
    protocol = type("BoundedH11Protocol", (TimedH11Protocol,), {"known": known})
    return uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=512,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
