"""The runner: a process beside the API that loads models and answers with them; torch is in its children only."""

import asyncio
import logging
import os
import socket
import time
from dataclasses import dataclass

import uvicorn

from core import confinement, private_memory
from core.services.backend import open_backend
from core.settings import PRIVATE_UMASK, Settings, SettingsError
from core.telemetry.logging import configure_logging
from worker.runner.limits import RunnerLimits
from worker.runner.pool import ModelPool
from worker.runner.server import LOOPBACK, RunnerServer
from worker.scratch import WorkerScratch

SWEEP_SECONDS = 1.0
SHUTDOWN_SECONDS = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a runner without a parent listens."""

    host: str = "127.0.0.1"
    port: int = 8001

    def open(self) -> socket.socket:
        """Return the listening socket. Raises SettingsError."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise SettingsError(
                f"cannot listen on {self.host}:{self.port} ({error.strerror}); choose another --port"
            ) from None
        return listener


def run(settings: Settings, descriptor: int) -> int:
    """Answer on a socket that the parent holds, until nobody has asked for long; return the exit code.

    The parent starts another runner when somebody connects. Raises SettingsError.
    """
    return _run(settings, socket.socket(fileno=descriptor), ends_when_idle=True)


def run_at(settings: Settings, address: Address) -> int:
    """Answer at an address until SIGTERM or SIGINT; return the exit code. Raises SettingsError."""
    if settings.runner_secret is None and address.host not in LOOPBACK:
        raise SettingsError(
            f"PREFTUNE_RUNNER_SECRET: {address.host} can be reached from other machines, which needs a secret that "
            "the API has as well; `openssl rand -hex 32` makes one"
        )
    return _run(settings, address.open(), ends_when_idle=False)


def _run(settings: Settings, listener: socket.socket, *, ends_when_idle: bool) -> int:
    limits = RunnerLimits.of(settings)
    os.umask(PRIVATE_UMASK)
    configure_logging(settings)
    private_memory.forbid_reading()
    confinement.start(is_wanted=settings.confine_children)
    backend = open_backend(settings)
    scratch = WorkerScratch(settings.scratch_dir)
    try:
        pool = ModelPool(backend, scratch, limits)
        server = RunnerServer(pool, settings.current("runner_secret"))
        return asyncio.run(_serve(server, listener, ends_when_idle=ends_when_idle))
    finally:
        scratch.close()
        backend.close()


async def _serve(server: RunnerServer, listener: socket.socket, *, ends_when_idle: bool) -> int:
    config = uvicorn.Config(
        server.app(),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    http = uvicorn.Server(config)
    sweeping = asyncio.create_task(_sweep(server, http, ends_when_idle=ends_when_idle))
    _log.info("runner listens on %s", listener.getsockname())
    try:
        await http.serve(sockets=[listener])
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await server.pool.close()
    return 0


async def _sweep(server: RunnerServer, http: uvicorn.Server, *, ends_when_idle: bool) -> None:
    pool = server.pool
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            await pool.sweep()
        except Exception:  # noqa: BLE001 - models must be given up, and the runner end, whatever one pass meets
            _log.exception("models could not be looked after; the next pass tries again")
        is_unused = server.num_answers == 0 and pool.is_idle and not pool.loaded
        if ends_when_idle and is_unused and time.monotonic() - pool.used_at > pool.limits.idle_seconds:
            _log.info("nobody has asked for %.0f s; the runner ends", pool.limits.idle_seconds)
            http.should_exit = True
            return
