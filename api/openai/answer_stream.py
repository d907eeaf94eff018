"""Answers as server-sent events: chunks as OpenAI's clients read them, an error as the last of them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.downloads import ABORT
from api.http.clients import unless_gone, until_gone
from api.http.openai_errors import openai_document, openai_status
from api.http.problems import fault_of
from api.live.stream import AT_SHUTDOWN, SEND_SECONDS
from api.openai.answer_feed import AnswerFeed
from core.domain.errors import DomainError
from core.services.chat.answering import Answer, Piece

WAITING_SECONDS = 5.0
"""Time between two comments while no token comes: a model is loaded, or others have their turn."""
FIRST_SECONDS = 15.0
"""What is refused within that time has a status of its own; later it is the last event of the stream."""
_WAITING = b": waiting\n\n"
_DONE = b"data: [DONE]\n\n"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

ChunkOf = Callable[[Piece], dict[str, Any] | None]
"""None: the piece adds nothing that was asked for."""


class AnswerStream(Response):
    """Sends the chunks of a feed, closes it, and ends the work when the client goes away."""

    media_type = "text/event-stream"

    def __init__(
        self,
        feed: AnswerFeed,
        first: list[Piece],
        chunk_of: ChunkOf,
        last_chunk: Callable[[int], dict[str, Any] | None],
    ) -> None:
        """`first`: pieces that came already. `last_chunk` counts the generated tokens, if they are asked for."""
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._feed = feed
        self._first = first
        self._chunk_of = chunk_of
        self._last_chunk = last_chunk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(self._write(scope, send))
        listening = asyncio.create_task(until_gone(receive))
        scope["state"][AT_SHUTDOWN] = listening.cancel
        try:
            await asyncio.wait((writing, listening), return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        except TimeoutError:
            scope["state"].get(ABORT, lambda: None)()
        finally:
            for task in (writing, listening):
                task.cancel()
            await asyncio.gather(writing, listening, return_exceptions=True)
            await self._feed.close()

    async def _write(self, scope: Scope, send: Send) -> None:
        """Send everything. Raises TimeoutError when the client reads nothing."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        num_tokens = 0
        try:
            for piece in self._first:
                num_tokens += await self._write_piece(piece, send)
            while True:
                try:
                    found = await self._feed.next(WAITING_SECONDS)
                except TimeoutError:
                    await _send(send, _WAITING)
                    continue
                if found is None:
                    break
                num_tokens += await self._write_piece(found, send)
            if (last := self._last_chunk(num_tokens)) is not None:
                await _send(send, _event(last))
            await _send(send, _DONE)
        except DomainError as error:
            await _send(send, _event(_error(error, scope)))
        with suppress(TimeoutError):
            await _send(send, b"", more_body=False)

    async def _write_piece(self, piece: Piece, send: Send) -> int:
        """Send what a piece adds; return how many tokens it has."""
        chunk = self._chunk_of(piece)
        if chunk is not None:
            await _send(send, _event(chunk))
        return len(piece.tokens)


async def wait_for_first(receive: Receive, feed: AnswerFeed) -> list[Piece]:
    """Return the first piece, or none where the client goes away or it takes long.

    Raises what `AnswerFeed.next` raises; the feed is closed then.
    """
    waiting = asyncio.create_task(feed.next(FIRST_SECONDS))
    listening = asyncio.create_task(until_gone(receive))
    try:
        await asyncio.wait((waiting, listening), return_when=asyncio.FIRST_COMPLETED)
        found = waiting.result() if waiting.done() else None
        return [] if found is None else [found]
    except TimeoutError:
        return []
    except BaseException:
        await feed.close()
        raise
    finally:
        for task in (waiting, listening):
            task.cancel()
        await asyncio.gather(waiting, listening, return_exceptions=True)


async def while_connected(receive: Receive, feed: AnswerFeed) -> list[Answer] | None:
    """Return the feed's whole answers, or None when the client goes away before; closes the feed.

    Raises what `AnswerFeed.next` raises.
    """
    try:
        return await unless_gone(receive, feed.collect())
    finally:
        await feed.close()


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


def _error(error: DomainError, scope: Scope) -> dict[str, Any]:
    fault = fault_of(error)
    status = openai_status(fault.kind.status.value)
    request_id = scope.get("state", {}).get("request_id")
    return openai_document(status, fault.kind.code, fault.detail, fault.errors, request_id)


async def _send(send: Send, body: bytes, *, more_body: bool = True) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": more_body})
