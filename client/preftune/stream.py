"""Server-sent events of a job, continued where a lost connection left off."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from preftune.errors import ConnectionFailed
from preftune.transport import RETRY_STATUSES, SILENCE_SECONDS, Transport, problem_of

_FIRST_PAUSE_SECONDS = 0.25
_MAX_PAUSE_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class StreamEvent:
    kind: str
    """`metric`, `status`, `event`, `reset` or `end`"""
    data: Any
    """`metric`: a list of points; `event`: as in `jobs.events`; `status`: the job without its settings."""
    id: str
    """How far the reader is with this event; `stream(after=…)` goes on from there."""


class _Lost(Exception):
    pass


def follow(transport: Transport, path: str, after: str | None, max_lost_seconds: float) -> Iterator[StreamEvent]:
    """Yield events until `end`. Raises ApiError, and ConnectionFailed after too long without any."""
    heard_at = time.monotonic()
    num_failures, is_over = 0, False
    while True:
        try:
            for event in _connect(transport, path, after):
                after, heard_at, num_failures = event.id, time.monotonic(), 0
                is_over = event.kind == "end"
                yield event
            if is_over:
                return
        except (httpx.TransportError, _Lost) as error:
            if time.monotonic() - heard_at > max_lost_seconds:
                message = f"no answer from {transport.base_url} ({type(error).__name__}); is it running?"
                raise ConnectionFailed(message) from error
        time.sleep(min(_MAX_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**num_failures))
        num_failures = min(num_failures + 1, 8)


def _connect(transport: Transport, path: str, after: str | None) -> Iterator[StreamEvent]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
    timeout = httpx.Timeout(transport.http.timeout.connect, read=SILENCE_SECONDS)
    with transport.http.stream("GET", path, headers=headers, timeout=timeout) as response:
        if response.status_code >= 400:
            response.read()
        if response.status_code in RETRY_STATUSES:
            raise _Lost
        problem = problem_of(response)
        if problem is not None:
            raise problem
        yield from parse(response.iter_bytes())


def parse(chunks: Iterable[bytes]) -> Iterator[StreamEvent]:
    """Parse events from the bytes of the stream; comments and incomplete events are left out."""
    fields: dict[str, str] = {}
    for line in _lines(chunks):
        if not line:
            if "data" in fields:
                yield StreamEvent(kind=fields["event"], data=json.loads(fields["data"]), id=fields["id"])
            fields = {}
            continue
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Split at line feeds only: data may hold other characters that Python takes for line ends."""
    rest: list[bytes] = []
    for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        for line in whole:
            yield b"".join((*rest, line)).decode()
            rest.clear()
        rest.append(last)
