"""Message broker in a directory, for deployments without a server: a kombu transport.

Kombu's own `filesystem` transport writes messages in place, so that readers see torn ones, and one of those ends a
whole Celery worker. Here a message is written aside, synced and renamed in; a reader takes it by renaming it, which
only one can; what cannot be decoded is dropped. Queues are names in file names: nothing is declared or bound on disk.
Only for local file systems.
"""

import json
import logging
import os
import re
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, virtual

from core.durable_files import new_private_file

SCHEME = "safefs"
_SUFFIX = ".msg"
_UNFINISHED = (".tmp", ".taken")
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STALE_SECONDS = 3600.0
_MAX_WAITING = 1000
_MAX_DRAIN_SECONDS = 0.5

_log = logging.getLogger(__name__)


def register() -> None:
    """Make `safefs://` known to kombu."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"


def prepare(directory: Path) -> dict[str, Any]:
    """Return the transport options of a broker in this directory, which is created if needed."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_unfinished(directory)
    return {"directory": str(directory.resolve()), "polling_interval": 0.2, "max_waiting": _MAX_WAITING}


def _remove_unfinished(directory: Path) -> None:
    """Remove the remains of killed producers and consumers."""
    limit = time.time() - _STALE_SECONDS
    for path in directory.iterdir():
        try:
            if path.suffix in _UNFINISHED and path.stat().st_mtime < limit:
                path.unlink()
        except FileNotFoundError:
            continue


class Channel(virtual.Channel):
    supports_fanout = False

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        if not _QUEUE_NAME.fullmatch(queue):
            raise ChannelError(f"not a queue name: {queue!r}")
        if self._size(queue) >= self._options["max_waiting"]:
            return  # nobody listens; one wake-up more would wake nobody more
        name = uuid.uuid4().hex
        unfinished = self._directory / f".{name}.tmp"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(unfinished, json.dumps(message).encode())
            unfinished.rename(self._directory / f"{time.time_ns():020d}_{name}.{queue}{_SUFFIX}")
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise ChannelError("cannot add a message to the broker's directory") from error

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        for name in sorted(self._names(queue)):
            taken = self._directory / f".{uuid.uuid4().hex}.taken"
            try:
                (self._directory / name).rename(taken)
                content = taken.read_bytes()
                taken.unlink(missing_ok=True)
            except OSError:  # another consumer was faster
                continue
            payload = _decode(content)
            if payload is not None:
                return payload
            _log.warning("dropped an undecodable message of the file broker: %s", name)
        raise Empty

    def _size(self, queue: str) -> int:
        return len(self._names(queue))

    def _purge(self, queue: str) -> int:
        names = self._names(queue)
        for name in names:
            (self._directory / name).unlink(missing_ok=True)
        return len(names)

    def _names(self, queue: str) -> list[str]:
        ending = f".{queue}{_SUFFIX}"
        try:
            return [name for name in os.listdir(self._directory) if name.endswith(ending) and name[0] != "."]
        except OSError:  # the directory was deleted; the next message makes it anew
            return []

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        with new_private_file(path) as file:
            file.write(content)

    @property
    def _options(self) -> dict[str, Any]:
        client: Any = self.connection.client
        return dict(client.transport_options)

    @property
    def _directory(self) -> Path:
        return Path(self._options["directory"])


class Transport(virtual.Transport):
    Channel = Channel
    default_port = 0
    driver_type = SCHEME
    driver_name = SCHEME
    implements = virtual.Transport.implements.extend(asynchronous=False, exchange_type=frozenset(["direct"]))

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:
        """Wait as requested, but at most half a second: between two calls a worker sees a stop."""
        super().drain_events(connection, timeout=min(timeout, _MAX_DRAIN_SECONDS) if timeout else timeout)

    def driver_version(self) -> str:
        return "1"


def _decode(content: bytes) -> dict[str, Any] | None:
    """Return the message, or None for a partial or foreign file."""
    try:
        payload = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(payload, dict) or not isinstance(payload.get("properties"), dict) or "body" not in payload:
        return None
    properties = payload["properties"]
    if not isinstance(properties.get("delivery_info"), dict) or "delivery_tag" not in properties:
        return None
    return payload
