"""What `vllm serve` takes and answers (0.33.0): completions of token ids, scores of prompts, errors.

Request fields and answers are those of `vllm/entrypoints/openai/completion/protocol.py`. Whatever a model's own
`generation_config.json` would change is said explicitly, since vLLM takes its defaults from there.
"""

import json
from collections.abc import Iterator
from typing import Any

from core.services.chat.runner import AnswerEnd, EndReason, GeneratedToken, GenerationRequest, RunnerEvent, RunnerFailed

COMPLETIONS_PATH, MODELS_PATH = "/v1/completions", "/v1/models"
LOAD_PATH, UNLOAD_PATH = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_TOKEN = "token_id:"
_DATA = "data: "
_DONE = "[DONE]"
_END_REASONS: dict[str, EndReason] = {"stop": "stop", "length": "length"}
_UNREADABLE = "vLLM's answer cannot be read; PREFTUNE_RUNNER_URL must be the address of a vLLM server, not an old one."
_PLAIN = {
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_k": 0,
    "min_p": 0.0,
}


def completion_body(name: str, request: GenerationRequest) -> dict[str, Any]:
    """Return the body of a streamed completion whose tokens come as ids with the model's own log-probabilities."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": name,
        "prompt": request.prompt_ids,
        "add_special_tokens": False,
        "n": request.num_answers,
        "max_tokens": sampling.max_tokens or 1,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "logprobs": sampling.top_logprobs,
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
        "ignore_eos": True,  # an answer ends where ours says so, whatever the model's files say
        "stop_token_ids": list(request.end_ids),
        "stream": True,
        **_PLAIN,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed % 2**63  # -1 would mean none
    return body


def score_body(name: str, ids: list[int]) -> dict[str, Any]:
    """Return the body of a request for the log-probability of every token of a prompt."""
    return {
        "model": name,
        "prompt": ids,
        "add_special_tokens": False,
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 0,
        **_PLAIN,
    }


def decode_line(line: str, num_top: int) -> Iterator[RunnerEvent] | None:
    """Return the events of a line of the stream; None at its end. Raises RunnerFailed."""
    if not line.startswith(_DATA):
        return iter(())  # an empty line or a comment
    text = line[len(_DATA) :]
    if text == _DONE:
        return None
    try:
        chunk = json.loads(text)
        if chunk.get("error") or chunk.get("object") == "error":
            raise RunnerFailed("vLLM failed on this request; its log says more.")
        return iter([event for choice in chunk["choices"] for event in _events(choice, num_top)])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RunnerFailed(_UNREADABLE) from None


def _events(choice: dict[str, Any], num_top: int) -> Iterator[RunnerEvent]:
    index, ids = int(choice["index"]), choice.get("token_ids") or []
    logprobs = choice.get("logprobs") or {"token_logprobs": [], "top_logprobs": []}
    tops = logprobs["top_logprobs"] or [None] * len(ids)
    for token_id, logprob, top in zip(ids, logprobs["token_logprobs"], tops, strict=True):
        yield GeneratedToken(
            index=index, token_id=int(token_id), logprob=float(logprob), top=_top(top, num_top) if num_top else ()
        )
    reason = choice.get("finish_reason")
    if reason is None:
        return
    if reason not in _END_REASONS:  # `abort` or `error`
        raise RunnerFailed("vLLM gave the answer up before its end; ask again.")
    yield AnswerEnd(index=index, reason=_END_REASONS[reason])


def _top(found: dict[str, float], num_top: int) -> tuple[tuple[int, float], ...]:
    """Return the most likely tokens; vLLM adds the chosen one where it is not among them."""
    pairs = [(int(name.removeprefix(_TOKEN)), float(value)) for name, value in found.items()]
    return tuple(sorted(pairs, key=lambda pair: -pair[1])[:num_top])


def decode_scores(answer: dict[str, Any], ids: list[int], num_prompt: int) -> list[float]:
    """Return the log-probabilities of the tokens behind the prompt. Raises RunnerFailed."""
    try:
        places = answer["choices"][0]["prompt_logprobs"]
        if len(places) != len(ids):
            raise ValueError(len(places))
        return [
            float(place[str(token)]["logprob"])
            for token, place in zip(ids[num_prompt:], places[num_prompt:], strict=True)
        ]
    except (ValueError, TypeError, KeyError, IndexError):
        raise RunnerFailed(_UNREADABLE) from None


def decode_models(answer: dict[str, Any]) -> dict[str, int | None]:
    """Return the names that a server answers to, with the most tokens where it says so. Raises RunnerFailed."""
    try:
        return {str(card["id"]): card.get("max_model_len") for card in answer["data"]}
    except (TypeError, KeyError, AttributeError):
        raise RunnerFailed(_UNREADABLE) from None


def decode_json(content: bytes) -> dict[str, Any]:
    """Return the object of an answer. Raises RunnerFailed."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RunnerFailed(_UNREADABLE)
    return found


def error_message(content: bytes) -> str:
    """Return what an error says, in one of the forms that versions of vLLM have had, at most 300 characters."""
    try:
        found = json.loads(content)
        inner = found.get("error", found)
        text = inner if isinstance(inner, str) else inner.get("message") or inner.get("detail")
    except (ValueError, AttributeError):
        text = None
    return " ".join(str(text or "it says no reason").split())[:300]
