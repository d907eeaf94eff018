"""The runner's HTTP side, for the API alone: a secret, bounded requests, answers as JSON lines."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from core.domain.errors import DomainError
from core.services.chat.http_runner import (
    GENERATE_PATH,
    GENERATION,
    HEALTH_PATH,
    SCORE_PATH,
    SCORING,
    STATE_PATH,
    encode_error,
    encode_event,
    encode_scores,
    parse,
)
from core.services.chat.runner import (
    ContextTooLong,
    GenerationRequest,
    RunnerBusy,
    RunnerFailed,
    RunnerTimedOut,
    ScoreRequest,
)
from core.services.chat.served_models import ServedModel
from worker.runner.engine import Engine
from worker.runner.pool import ModelPool

MAX_BODY_BYTES = 16 * 1024 * 1024
SIGN_SECONDS = 5.0
"""Between two signs of life of an answer that makes no progress."""
LINES = "application/x-ndjson"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_REFUSED = 409

_log = logging.getLogger(__name__)


class RunnerServer:
    """Counts what is under way; lives on one event loop."""

    def __init__(self, pool: ModelPool, secret: str | None) -> None:
        self.pool = pool
        self._secret = secret
        self.num_answers = 0
        """Answers and scores asked for that are not over."""

    def app(self) -> Starlette:
        routes = [
            Route(GENERATE_PATH, self._generate, methods=["POST"]),
            Route(SCORE_PATH, self._score, methods=["POST"]),
            Route(STATE_PATH, self._state, methods=["GET"]),
            Route(HEALTH_PATH, self._health, methods=["GET"]),
        ]
        return Starlette(routes=routes)

    async def _health(self, _request: Request) -> Response:
        return Response(b"ok\n", media_type="text/plain")

    async def _state(self, request: Request) -> Response:
        if not self._is_known(request):
            return Response(status_code=401)
        models = [
            {
                "name": loaded.engine.name,
                "num_users": loaded.num_users,
                "num_open": loaded.engine.num_open,
                "is_batched": loaded.engine.ready is not None and loaded.engine.ready.is_batched,
                "resident_bytes": loaded.engine.resident_bytes,
            }
            for loaded in self.pool.loaded
        ]
        return Response(
            orjson.dumps({"num_answers": self.num_answers, "models": models}), media_type="application/json"
        )

    async def _generate(self, request: Request) -> Response:
        return await self._admit(request, GENERATION, _Generation)

    async def _score(self, request: Request) -> Response:
        return await self._admit(request, SCORING, _Scoring)

    async def _admit(self, request: Request, adapter: Any, work_of: Callable[[Any], "_Work"]) -> Response:
        if not self._is_known(request):
            return Response(status_code=401)
        try:
            work = work_of(parse(adapter, await _body(request)))
            self._require_place(work.num_answers)
            return _Lines(self, work)
        except DomainError as error:
            return Response(encode_error(error), _REFUSED, media_type=LINES)

    def _is_known(self, request: Request) -> bool:
        if self._secret is None:  # then it listens on loopback, which pages in a browser reach as well
            return "origin" not in request.headers and request.url.hostname in LOOPBACK
        given = request.headers.get("authorization", "")
        return secrets.compare_digest(given.encode(), f"Bearer {self._secret}".encode())

    def _require_place(self, num_answers: int) -> None:
        """Raise RunnerBusy where more would wait than may."""
        limits = self.pool.limits
        most = limits.max_sequences + limits.max_waiting
        if self.num_answers + num_answers > most:
            raise RunnerBusy(f"{self.num_answers} answers are asked for already, and {most} may be; ask again later.")


class _Work(Protocol):
    """What is to be done with a loaded model."""

    @property
    def model(self) -> ServedModel: ...

    @property
    def num_answers(self) -> int: ...

    @property
    def num_tokens(self) -> int:
        """Most tokens of one sequence."""

    def lines(self, engine: Engine) -> AsyncGenerator[bytes, None]: ...


class _Generation:
    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self.model = request.model
        self.num_answers = request.num_answers
        self.num_tokens = len(request.prompt_ids) + (request.sampling.max_tokens or 0)

    async def lines(self, engine: Engine) -> AsyncGenerator[bytes, None]:
        async with aclosing(engine.generate(self._request)) as events:
            async for event in events:
                yield encode_event(event)


class _Scoring:
    def __init__(self, request: ScoreRequest) -> None:
        self._request = request
        self.model = request.model
        self.num_answers = 1
        self.num_tokens = len(request.prompt_ids) + len(request.response_ids)

    async def lines(self, engine: Engine) -> AsyncGenerator[bytes, None]:
        yield encode_scores(await engine.score(self._request))


class _Lines(Response):
    """Lines of one request as they come; the work ends when the client goes away."""

    def __init__(self, server: RunnerServer, work: _Work) -> None:
        super().__init__(media_type=LINES)
        del self.headers["content-length"]
        self._server = server
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        server, work = self._server, self._work
        server.num_answers += work.num_answers
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        doing = asyncio.create_task(self._do(lines))
        writing = asyncio.create_task(self._write(lines, send))
        listening = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait((writing, listening), return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                for task in (doing, writing, listening):
                    task.cancel()
                await asyncio.gather(doing, writing, listening, return_exceptions=True)
            finally:
                server.num_answers -= work.num_answers

    async def _write(self, lines: "asyncio.Queue[bytes | None]", send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while True:
            try:
                async with asyncio.timeout(SIGN_SECONDS):
                    line = await lines.get()
            except TimeoutError:
                line = b"\n"
            if line is None:
                break
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _do(self, lines: "asyncio.Queue[bytes | None]") -> None:
        """Put the lines, then None. Every error becomes a line."""
        pool, work = self._server.pool, self._work
        seconds = pool.limits.timeout_seconds
        try:
            async with asyncio.timeout(seconds), pool.use(work.model) as loaded:
                if work.num_tokens > loaded.max_context:
                    raise ContextTooLong(
                        f"Prompt and answer may have {loaded.max_context:,} tokens with this runner, not "
                        f"{work.num_tokens:,} (PREFTUNE_CHAT_MAX_CONTEXT_TOKENS)."
                    )
                async with aclosing(work.lines(loaded.engine)) as found:
                    async for line in found:
                        lines.put_nowait(line)
        except TimeoutError:
            detail = f"The answer took more than {seconds:.0f} seconds (PREFTUNE_CHAT_TIMEOUT_SECONDS)."
            lines.put_nowait(encode_error(RunnerTimedOut(detail)))
        except DomainError as error:
            lines.put_nowait(encode_error(error))
        except Exception:  # noqa: BLE001 - the edge of the runner: who asked must be told
            _log.exception("a request met an unexpected error")
            lines.put_nowait(encode_error(RunnerFailed("The runner failed on this request; its log says more.")))
        finally:
            lines.put_nowait(None)


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise ContextTooLong(f"The request has more than {MAX_BODY_BYTES:,} bytes.")
    return bytes(content)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
