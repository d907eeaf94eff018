"""Stands for `vllm serve`: its API (0.33.0) as far as the service asks it, over tokens that are worked out, not learnt.

Fields that vLLM does not have are refused here, though vLLM lets them pass: what is sent must mean something to it.
"""

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "vllm-key-of-tests-0123456789"
MAX_LORA_RANK = 16
END_ID = 2
KNOWN = frozenset(
    {
        *("model", "prompt", "add_special_tokens", "n", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed"),
        *("repetition_penalty", "presence_penalty", "frequency_penalty", "ignore_eos", "stop_token_ids", "stream"),
        *("logprobs", "prompt_logprobs", "return_tokens_as_token_ids", "return_token_ids"),
    }
)
"""Fields of vLLM's CompletionRequest that the service sends."""


@dataclass(kw_only=True)
class VllmStandIn:
    base: str
    max_model_len: int = 512
    allows_adapters: bool = True
    """VLLM_ALLOW_RUNTIME_LORA_UPDATING"""
    is_stuck: bool = False
    """Says nothing after the first token of each answer."""
    breaks_after: int | None = None
    """Tokens after which an answer breaks off with an error."""
    redirects_to: str | None = None
    url: str = ""
    adapters: dict[str, str] = field(default_factory=dict)
    """Folder of each loaded adapter, by name."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    """What was loaded and unloaded."""
    num_open: int = 0

    def app(self) -> Starlette:
        routes = [
            Route("/v1/models", self._list, methods=["GET"]),
            Route("/v1/completions", self._complete, methods=["POST"]),
        ]
        if self.allows_adapters:
            routes += [
                Route("/v1/load_lora_adapter", self._load, methods=["POST"]),
                Route("/v1/unload_lora_adapter", self._unload, methods=["POST"]),
            ]
        not_found = JSONResponse({"detail": "Not Found"}, 404)
        return Starlette(routes=routes, exception_handlers={404: lambda *_: not_found})

    def restart(self) -> None:
        self.adapters.clear()

    async def _list(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        cards = [{"id": self.base, "object": "model", "max_model_len": self.max_model_len, "parent": None}]
        cards += [
            {"id": name, "object": "model", "root": path, "parent": self.base} for name, path in self.adapters.items()
        ]
        return JSONResponse({"object": "list", "data": cards})

    def _refusal(self, request: Request) -> Response | None:
        if self.redirects_to is not None:
            return Response(status_code=307, headers={"location": self.redirects_to})
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({"error": "Unauthorized"}, 401)
        return None

    async def _load(self, request: Request) -> Response:
        body = json.loads(await request.body())
        name, path = body["lora_name"], Path(body["lora_path"])
        assert body.keys() == {"lora_name", "lora_path"}
        if name in self.adapters:
            return fault(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
        if not (path / "adapter_config.json").is_file():
            return fault(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for {path}")
        rank = json.loads((path / "adapter_config.json").read_text())["r"]
        if rank > MAX_LORA_RANK:
            text = f"LoRA rank {rank} is greater than max_lora_rank {MAX_LORA_RANK}."
            return fault(500, "InternalServerError", text)
        assert (path / "adapter_model.safetensors").is_file()
        self.adapters[name] = str(path)
        self.log.append(f"load {name}")
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: Request) -> Response:
        name = json.loads(await request.body())["lora_name"]
        if name not in self.adapters:
            return fault(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        self.log.append(f"unload {name}")
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def _complete(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        body = json.loads(await request.body())
        assert body.keys() <= KNOWN, body.keys() - KNOWN
        self.asked.append(body)
        name, prompt = body["model"], body["prompt"]
        if name != self.base and name not in self.adapters:
            return fault(404, "NotFoundError", f"The model `{name}` does not exist.")
        if len(prompt) + body["max_tokens"] > self.max_model_len:
            text = f"This model's maximum context length is {self.max_model_len} tokens."
            return fault(400, "BadRequestError", text)
        if not body.get("stream"):
            places: list[Any] = [None]
            places += [
                {str(token): {"logprob": self.logprob(name, token), "rank": 1, "decoded_token": "x"}}
                for token in prompt[1:]
            ]
            return JSONResponse({"choices": [{"index": 0, "text": "x", "prompt_logprobs": places}]})
        return StreamingResponse(self._stream(body), media_type="text/event-stream")

    def logprob(self, name: str, token: int) -> float:
        return -0.25 - token / 1000 - (0.5 if name in self.adapters else 0)

    def tokens(self, body: dict[str, Any], index: int) -> list[int]:
        """The ids of an answer: they depend on the prompt, the weights, the seed and the answer's place."""
        name = body["model"]
        weights = Path(self.adapters[name], "adapter_model.safetensors").read_bytes() if name in self.adapters else b""
        text = json.dumps([body["prompt"], body.get("seed"), index if body["temperature"] else 0]).encode()
        digest = hashlib.sha256(weights + text).digest()
        ids = [5 + byte % 60 for byte in digest] + [END_ID]
        return ids[: body["max_tokens"]]

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        self.num_open += 1
        try:
            for index in range(body["n"]):
                ids = self.tokens(body, index)
                for place, token in enumerate(ids):
                    if place and self.is_stuck:
                        await asyncio.sleep(3600)
                    if place == self.breaks_after:
                        yield line(
                            {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}
                        )
                        yield "data: [DONE]\n\n"
                        return
                    yield line(self._chunk(body, index, token, is_last=place == len(ids) - 1))
                    await asyncio.sleep(0)
            yield "data: [DONE]\n\n"
        finally:
            self.num_open -= 1

    def _chunk(self, body: dict[str, Any], index: int, token: int, *, is_last: bool) -> dict[str, Any]:
        name, is_end = body["model"], token in body["stop_token_ids"]
        own = self.logprob(name, token)
        others = {f"token_id:{token + step}": own - step for step in range(1, body["logprobs"] + 1)}
        choice = {
            "index": index,
            "text": "" if is_end else "x",
            "logprobs": {
                "text_offset": [0],
                "tokens": [f"token_id:{token}"],
                "token_logprobs": [own],
                "top_logprobs": [{f"token_id:{token}": own} | others],
            },
            "finish_reason": "stop" if is_end else "length" if is_last else None,
            "stop_reason": token if is_end else None,
            "token_ids": [token],
        }
        return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": name, "choices": [choice]}


def fault(status: int, kind: str, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)


def line(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


@contextmanager
def running_standin(base: str, **fields: Any) -> Iterator[VllmStandIn]:
    standin = VllmStandIn(base=base, **fields)
    config = uvicorn.Config(standin.app(), host="127.0.0.1", port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="vLLM's stand-in")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        standin.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield standin
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
