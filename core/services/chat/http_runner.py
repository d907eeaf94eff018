"""Runner of this service, asked over HTTP: `preftune runner`, or the one that `preftune serve` starts."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError

from core.domain.errors import DomainError
from core.services.chat import runner as errors
from core.services.chat.runner import (
    AnswerEnd,
    GeneratedToken,
    GenerationRequest,
    RunnerEvent,
    RunnerFailed,
    RunnerUnavailable,
    ScoreRequest,
)

GENERATE_PATH, SCORE_PATH, HEALTH_PATH, STATE_PATH = "/generate", "/score", "/health", "/state"
CONNECT_SECONDS = 10.0
SILENT_SECONDS = 60.0
"""A runner says something every few seconds, also while a model is loaded."""

GENERATION = TypeAdapter(GenerationRequest)
SCORING = TypeAdapter(ScoreRequest)
_ERRORS: dict[str, type[DomainError]] = {
    error.code: error
    for error in (
        errors.RunnerUnavailable,
        errors.RunnerFailed,
        errors.RunnerBusy,
        errors.RunnerTimedOut,
        errors.ModelTooLarge,
        errors.ModelNotServed,
        errors.ContextTooLong,
        errors.DeviceBusy,
    )
}

_UNREADABLE = "The runner's answer cannot be read; its log says more."


def encode_event(event: RunnerEvent) -> bytes:
    """Return a line of the runner's answer."""
    if isinstance(event, AnswerEnd):
        return json.dumps(["end", event.index, event.reason]).encode() + b"\n"
    return json.dumps(["token", event.index, event.token_id, event.logprob, event.top]).encode() + b"\n"


def encode_error(error: DomainError) -> bytes:
    return json.dumps(["error", error.code, error.detail]).encode() + b"\n"


def encode_scores(logprobs: list[float]) -> bytes:
    return json.dumps(["scores", logprobs]).encode() + b"\n"


def decode_event(line: str) -> RunnerEvent:
    """Return the event of a line. Raises the error that it tells, or RunnerFailed."""
    kind, values = _parts(line)
    try:
        if kind == "token":
            index, token_id, logprob, top = values
            pairs = tuple((int(token), float(value)) for token, value in top)
            return GeneratedToken(index=int(index), token_id=int(token_id), logprob=float(logprob), top=pairs)
        index, reason = values
        return AnswerEnd(index=int(index), reason=reason)
    except (ValueError, TypeError):
        raise RunnerFailed(_UNREADABLE) from None


def decode_scores(line: str) -> list[float]:
    """Return the log-probabilities of a line. Raises the error that it tells, or RunnerFailed."""
    _, values = _parts(line)
    try:
        (logprobs,) = values
        return [float(value) for value in logprobs]
    except (ValueError, TypeError):
        raise RunnerFailed(_UNREADABLE) from None


def _parts(line: str | bytes) -> tuple[str, list[Any]]:
    """Return kind and values of a line. Raises the error that it tells, or RunnerFailed."""
    try:
        kind, *values = json.loads(line)
        if kind == "error":
            code, detail = values
    except (ValueError, TypeError):
        raise RunnerFailed(_UNREADABLE) from None
    if kind == "error":
        raise _ERRORS.get(str(code), RunnerFailed)(str(detail))
    return str(kind), values


class HttpRunner:
    """Lives on one event loop."""

    def __init__(self, url: str, secret: str | None) -> None:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        timeout = httpx.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
        self._client = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, limits=limits, trust_env=False)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[RunnerEvent, None]:
        """Yield events as `Runner.generate` says."""
        is_over = 0
        try:
            body = GENERATION.dump_json(request)
            async with self._client.stream("POST", GENERATE_PATH, content=body) as response:
                await _require_success(response)
                async for line in response.aiter_lines():
                    if not line:
                        continue  # a sign of life
                    event = decode_event(line)
                    is_over += isinstance(event, AnswerEnd)
                    yield event
        except httpx.HTTPError as error:
            raise _translated(error) from error
        if is_over < request.num_answers:
            raise RunnerFailed("The runner ended in the middle of the answer; ask again.")

    async def score(self, request: ScoreRequest) -> list[float]:
        """Return log-probabilities as `Runner.score` says."""
        try:
            body = SCORING.dump_json(request)
            async with self._client.stream("POST", SCORE_PATH, content=body) as response:
                await _require_success(response)
                async for line in response.aiter_lines():
                    if line:
                        return decode_scores(line)
        except httpx.HTTPError as error:
            raise _translated(error) from error
        raise RunnerFailed("The runner ended before its answer; ask again.")

    async def close(self) -> None:
        await self._client.aclose()


async def _require_success(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.OK:
        return
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise RunnerUnavailable("The runner does not know this API: set PREFTUNE_RUNNER_SECRET alike for both.")
    _parts(await response.aread())
    raise RunnerFailed(f"The runner answered {response.status_code}.")


def _translated(error: httpx.HTTPError) -> DomainError:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return RunnerUnavailable("The runner cannot be reached; it may be starting. Ask again, or see its log.")
    if isinstance(error, httpx.TimeoutException):
        return RunnerFailed("The runner has said nothing for too long; ask again.")
    return RunnerFailed("The connection to the runner broke in the middle of the answer; ask again.")


def parse(adapter: TypeAdapter[Any], body: bytes) -> Any:
    """Return the request in a body. Raises RunnerFailed."""
    try:
        return adapter.validate_json(body)
    except ValidationError:
        raise RunnerFailed("API and runner are of different versions; update both.") from None
