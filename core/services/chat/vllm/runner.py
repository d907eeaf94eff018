"""Runner that is `vllm serve`, asked over HTTP: one base model, and the LoRA policies that were trained from it.

Written against the API of vLLM 0.33.0 and tested against a stand-in for it: no machine with a GPU was at hand.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import structlog

from core.domain.errors import DomainError
from core.services.backend import Backend
from core.services.chat.runner import (
    AnswerEnd,
    ContextTooLong,
    GenerationRequest,
    ModelNotServed,
    RunnerBusy,
    RunnerEvent,
    RunnerFailed,
    RunnerTimedOut,
    RunnerUnavailable,
    ScoreRequest,
)
from core.services.chat.served_models import ServedModel
from core.services.chat.vllm import wire
from core.services.chat.vllm.adapters import PREFIX, LoadedAdapters
from core.services.chat.vllm.address import GuardedTransport, check_url
from core.settings import Settings

CONNECT_SECONDS = 10.0
LIST_SECONDS = 10.0
"""Time for which a list of the server's models is believed."""

_log = structlog.get_logger(__name__)


class _UnknownModel(Exception):
    """Raised where the server does not know a name: it may have been started anew since an adapter was loaded."""


@dataclass(frozen=True, kw_only=True)
class _Held:
    """A model that the server has, under its name there."""

    name: str
    adapter_of: ServedModel | None
    max_tokens: int | None
    """Most tokens of a prompt with its answer."""


class VllmRunner:
    """Lives on one event loop."""

    def __init__(self, backend: Backend) -> None:
        """Take the address and the key out of the settings. Raises SettingsError."""
        settings = backend.settings
        secret = settings.current("runner_secret")
        self._settings: Settings = settings
        self._client = httpx.AsyncClient(
            base_url=check_url(str(settings.runner_url)),
            headers={"Authorization": f"Bearer {secret}"} if secret else {},
            timeout=httpx.Timeout(settings.chat_timeout_seconds, connect=CONNECT_SECONDS),
            transport=GuardedTransport(),
            follow_redirects=False,
            trust_env=False,
        )
        self._adapters = LoadedAdapters(
            backend,
            settings.runner_adapters_dir or settings.data_dir / "vllm-adapters",
            settings.runner_max_adapters,
            self._load,
        )
        self._models: dict[str, int | None] = {}
        self._listed_at = -LIST_SECONDS
        self._has_adopted = False
        self._num_answers = 0

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[RunnerEvent, None]:
        """Yield events as `Runner.generate` says."""
        num_over, num_top = 0, request.sampling.top_logprobs
        deadline = asyncio.get_running_loop().time() + self._settings.chat_timeout_seconds
        with self._place(request.num_answers), self._told():
            async with AsyncExitStack() as stack:
                async with asyncio.timeout_at(deadline):
                    response = await self._start(stack, request)
                async for line in _lines(response, deadline):
                    events = wire.decode_line(line, num_top)
                    if events is None:
                        break
                    for event in events:
                        num_over += isinstance(event, AnswerEnd)
                        yield event
        if num_over < request.num_answers:
            raise RunnerFailed("vLLM ended in the middle of the answer; ask again.")

    async def score(self, request: ScoreRequest) -> list[float]:
        """Return log-probabilities as `Runner.score` says."""
        ids = [*request.prompt_ids, *request.response_ids]
        with self._place(1), self._told():
            async with asyncio.timeout(self._settings.chat_timeout_seconds), AsyncExitStack() as stack:
                held = await stack.enter_async_context(self._hold(request.model, len(ids) + 1))
                try:
                    answer = await self._ask("POST", wire.COMPLETIONS_PATH, wire.score_body(held.name, ids))
                except _UnknownModel:
                    held = await self._hold_again(stack, request.model, held, len(ids) + 1)
                    answer = await self._ask("POST", wire.COMPLETIONS_PATH, wire.score_body(held.name, ids))
        return wire.decode_scores(wire.decode_json(answer), ids, len(request.prompt_ids))

    async def close(self) -> None:
        await self._client.aclose()

    @contextmanager
    def _place(self, number: int) -> Iterator[None]:
        """Count answers under way. Raises RunnerBusy where more would wait than may."""
        most = self._settings.chat_capacity
        if self._num_answers + number > most:
            raise RunnerBusy(f"{self._num_answers} answers are asked for already, and {most} may be; ask again later.")
        self._num_answers += number
        try:
            yield
        finally:
            self._num_answers -= number

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what became of the connection."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise RunnerUnavailable("vLLM cannot be reached; it may be starting. Ask again, or see its log.") from None
        except (TimeoutError, httpx.TimeoutException):
            seconds = self._settings.chat_timeout_seconds
            detail = f"The answer took more than {seconds:.0f} seconds (PREFTUNE_CHAT_TIMEOUT_SECONDS)."
            raise RunnerTimedOut(detail) from None
        except httpx.HTTPError:
            raise RunnerFailed("The connection to vLLM broke in the middle of the answer; ask again.") from None
        except _UnknownModel as error:
            raise ModelNotServed(f"vLLM does not know the model: {error}") from None

    async def _start(self, stack: AsyncExitStack, request: GenerationRequest) -> httpx.Response:
        num_tokens = len(request.prompt_ids) + (request.sampling.max_tokens or 1)
        held = await stack.enter_async_context(self._hold(request.model, num_tokens))
        try:
            return await self._stream(stack, wire.completion_body(held.name, request))
        except _UnknownModel:
            held = await self._hold_again(stack, request.model, held, num_tokens)
            return await self._stream(stack, wire.completion_body(held.name, request))

    async def _stream(self, stack: AsyncExitStack, body: dict[str, Any]) -> httpx.Response:
        response = await stack.enter_async_context(self._client.stream("POST", wire.COMPLETIONS_PATH, json=body))
        if response.status_code != httpx.codes.OK:
            raise _refusal(response.status_code, await _content(response))
        return response

    @asynccontextmanager
    async def _hold(self, model: ServedModel, num_tokens: int) -> AsyncIterator[_Held]:
        """Hold a model that the server has. Raises ModelNotServed, ContextTooLong, and what a request raises."""
        base = await self._find(model)
        async with AsyncExitStack() as stack:
            held = base
            if base.adapter_of is not None:
                name = await stack.enter_async_context(self._adapters.use(base.adapter_of))
                held = _Held(name=name, adapter_of=base.adapter_of, max_tokens=base.max_tokens)
            if held.max_tokens is not None and num_tokens > held.max_tokens:
                raise ContextTooLong(
                    f"Prompt and answer may have {held.max_tokens:,} tokens with this runner, not {num_tokens:,} "
                    "(vLLM's --max-model-len)."
                )
            yield held

    async def _hold_again(self, stack: AsyncExitStack, model: ServedModel, held: _Held, num_tokens: int) -> _Held:
        """Load an adapter again that the server has lost; a model that it had at its start is gone."""
        self._listed_at = -LIST_SECONDS
        if held.adapter_of is None:
            raise ModelNotServed(f"vLLM does not serve {held.name} any more.")
        self._adapters.forget(held.adapter_of)
        return await stack.enter_async_context(self._hold(model, num_tokens))

    async def _find(self, model: ServedModel) -> _Held:
        is_adapter = model.policy is not None and model.has_lora and model.base_name is not None
        name = str(model.base_name) if is_adapter or model.policy is None else model.name
        if name not in self._models or time.monotonic() - self._listed_at > LIST_SECONDS:
            await self._list()
        if name in self._models:
            return _Held(name=name, adapter_of=model if is_adapter else None, max_tokens=self._models[name])
        there = ", ".join(found for found in self._models if not found.startswith(PREFIX)) or "nothing"
        if is_adapter or model.policy is None:
            raise ModelNotServed(f"vLLM serves {there}, not {name}; start it with --served-model-name {name}.")
        raise ModelNotServed(
            f"{name or 'The reference'} has weights of its own, which vLLM does not load while it runs; it serves "
            f"{there}. Download the policy and start vLLM with its folder and --served-model-name {name}."
        )

    async def _list(self) -> None:
        try:
            found = wire.decode_models(wire.decode_json(await self._ask("GET", wire.MODELS_PATH)))
        except _UnknownModel:
            raise RunnerFailed("There is no vLLM at PREFTUNE_RUNNER_URL.") from None
        if not self._has_adopted:
            await self._adapters.adopt([*found])
            self._has_adopted = True
        self._models, self._listed_at = found, time.monotonic()

    async def _load(self, name: str, folder: Path | None) -> None:
        """Load an adapter from a folder, or unload it. Raises ModelNotServed, RunnerUnavailable."""
        if folder is None:
            status, content = await self._send("POST", wire.UNLOAD_PATH, {"lora_name": name})
            is_done = status == httpx.codes.NOT_FOUND  # the server was started anew
        else:
            status, content = await self._send("POST", wire.LOAD_PATH, {"lora_name": name, "lora_path": str(folder)})
            is_done = b"already been loaded" in content  # by another process of the service
        if status == httpx.codes.OK or is_done:
            return
        if status == httpx.codes.NOT_FOUND and b'"detail"' in content:
            raise ModelNotServed(
                "vLLM loads no adapters while it runs: start it with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment."
            )
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise _refusal(status, content)
        message = wire.error_message(content)
        _log.warning("adapter_not_loaded", status=status, detail=message)
        raise ModelNotServed(f"vLLM could not load the adapter: {message}")

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        status, content = await self._send(method, path, body)
        if status != httpx.codes.OK:
            raise _refusal(status, content)
        return content

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        async with self._client.stream(method, path, json=body) as response:
            return response.status_code, await _content(response)


async def _content(response: httpx.Response) -> bytes:
    found = bytearray()
    async for chunk in response.aiter_bytes():
        found += chunk
        if len(found) > wire.MAX_ANSWER_BYTES:
            raise RunnerFailed("vLLM's answer is longer than any answer is.")
    return bytes(found)


async def _lines(response: httpx.Response, deadline: float) -> AsyncIterator[str]:
    """Yield the lines of a stream, each of a bounded length. Raises TimeoutError at the deadline."""
    rest, chunks = b"", aiter(response.aiter_bytes())
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                *lines, rest = (rest + await anext(chunks)).split(b"\n")
        except StopAsyncIteration:
            return
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
        if len(rest) > wire.MAX_LINE_BYTES:
            raise RunnerFailed("vLLM's answer has a line that is longer than any is.")


def _refusal(status: int, content: bytes) -> DomainError | _UnknownModel:
    """Return the error of an answer that is no success."""
    message = wire.error_message(content)
    if status == httpx.codes.NOT_FOUND:
        return _UnknownModel(message)
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return RunnerUnavailable("vLLM does not know this API: set PREFTUNE_RUNNER_SECRET to its --api-key.")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return RunnerBusy("vLLM has too many requests; ask again later.")
    _log.warning("vllm_refused", status=status, detail=message)
    if status == httpx.codes.BAD_REQUEST and "context length" in message:
        return ContextTooLong(f"The prompt and the answer do not fit vLLM's context: {message}")
    return RunnerFailed(f"vLLM answered {status}; the service's log says why.")
