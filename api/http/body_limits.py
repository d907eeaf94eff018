"""Limits on the size and slowness of request bodies, counted while streaming, refused as early as possible."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import BODY_TOO_LARGE, BODY_TOO_SLOW, HttpError, problem_response

MAX_JSON_BYTES = 1024 * 1024
_DRAIN_BYTES = 4 * 1024 * 1024
_DRAIN_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class BodyPolicy:
    max_bytes: int
    idle_seconds: float = 30.0
    """Without a single byte."""
    grace_seconds: float = 30.0
    """Before the rate counts."""
    min_bytes_per_second: float = 4096.0


class BodyLimits:
    """Bounds the body by the policy of its address.

    An answer given before the body has ended (a refusal, mostly) closes the connection, after reading on for a
    moment: else the client's next write fails before it has read why.
    """

    def __init__(self, app: ASGIApp, policy_of: Callable[[Scope], BodyPolicy]) -> None:
        self._app = app
        self._policy_of = policy_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, send, self._policy_of(scope))
        try:
            body.refuse_declared_length()
            await self._app(scope, body.receive, body.send)
        except HttpError as error:
            if body.has_answered:
                raise
            await problem_response(scope, error.fault)(scope, body.receive, body.send)


class _Body:
    """Body of one request while it is received, and its answer while it is sent."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, policy: BodyPolicy) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._send = send
        self._policy = policy
        self._declared = headers.get("content-length")
        self._num_bytes = 0
        self._started = time.monotonic()
        self._is_open = "transfer-encoding" in headers or self._declared not in (None, "0")
        self.has_answered = False

    def refuse_declared_length(self) -> None:
        if self._declared is not None and self._declared.isdigit() and int(self._declared) > self._policy.max_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        if not self._is_open:
            return await self._receive()
        try:
            async with asyncio.timeout(self._policy.idle_seconds):
                message = await self._receive()
        except TimeoutError:
            raise HttpError(BODY_TOO_SLOW, f"No byte came for {self._policy.idle_seconds:g} seconds.") from None
        self._note(message)
        self._check_rate()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_answered = True
            if self._is_open:
                MutableHeaders(scope=message)["Connection"] = "close"
        elif self._is_open and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _drain(self) -> None:
        limit = self._num_bytes + _DRAIN_BYTES
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._is_open and self._num_bytes < limit:
                    self._note(await self._receive(), is_counted_only=True)
        except TimeoutError:
            return

    def _note(self, message: Message, *, is_counted_only: bool = False) -> None:
        self._num_bytes += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._is_open = False
        if self._num_bytes > self._policy.max_bytes and not is_counted_only:
            raise self._too_large()

    def _check_rate(self) -> None:
        seconds = time.monotonic() - self._started
        rate = self._policy.min_bytes_per_second
        if self._is_open and seconds > self._policy.grace_seconds and self._num_bytes < seconds * rate:
            raise HttpError(BODY_TOO_SLOW, f"The body must come at {rate:g} bytes a second at least.")

    def _too_large(self) -> HttpError:
        return HttpError(BODY_TOO_LARGE, f"The body may have at most {self._policy.max_bytes:,} bytes here.")
