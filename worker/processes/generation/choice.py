"""Choice of the way to generate: batched where that gives the model's own log-probabilities, else one by one."""

import sys
import threading
from typing import Protocol

import torch
from transformers import PreTrainedModel

from core.domain.generation_protocol import End, Refused, Start, Token
from core.training.model.capabilities import stock_attention
from worker.processes.generation.batching import BatchingEngine, Emit, NotBatchable
from worker.processes.generation.one_by_one import OneByOneEngine
from worker.processes.generation.sampling import score

_TRIAL_TOKENS = 3
_TRIAL_SECONDS = 60.0
_TOLERANCES = {torch.float32: 1e-3}
_COARSE_TOLERANCE = 0.2
"""Nats a token in 16 bits; another context changes log-probabilities by more."""


class Engine(Protocol):
    @property
    def is_alive(self) -> bool: ...

    def start(self, order: Start) -> None: ...

    def stop(self, number: int) -> None: ...

    def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]: ...

    def close(self) -> None: ...


class _Relay:
    """Gives reports to whoever listens now."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit

    def __call__(self, report: Token | End | Refused) -> None:
        self.emit(report)


def open_engine(model: PreTrainedModel, *, max_sequences: int, max_context: int, emit: Emit) -> tuple[Engine, bool]:
    """Return an engine for the model, and whether it is batched."""
    relay = _Relay(emit)
    try:
        batched = BatchingEngine(model, max_sequences=max_sequences, max_context=max_context, emit=relay)
    except NotBatchable as reason:
        print(f"not batched: {reason}", file=sys.stderr)  # noqa: T201 - the runner's log
        return OneByOneEngine(model, emit=emit), False
    if _gives_own_logprobs(model, batched, relay):
        relay.emit = emit
        return batched, True
    batched.close()
    print("not batched: its batched log-probabilities are not its own", file=sys.stderr)  # noqa: T201
    return OneByOneEngine(model, emit=emit), False


def _gives_own_logprobs(model: PreTrainedModel, engine: BatchingEngine, relay: _Relay) -> bool:
    """Compare two short answers, made together, with plain forward passes over each alone."""
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(0, vocabulary, (length,), generator=generator).tolist() for length in (5, 11)]
    told: dict[int, list[Token]] = {number: [] for number in range(len(prompts))}
    num_open, is_whole, is_over = len(prompts), True, threading.Event()

    def listen(report: Token | End | Refused) -> None:
        nonlocal num_open, is_whole
        if isinstance(report, Token):
            told[report.number].append(report)
            return
        is_whole &= isinstance(report, End)
        num_open -= 1
        if num_open == 0:
            is_over.set()

    relay.emit = listen
    for number, prompt in enumerate(prompts):
        order = Start(
            number=number, prompt_ids=prompt, max_tokens=_TRIAL_TOKENS, end_ids=[], temperature=0, top_p=1, seed=0
        )
        engine.start(order)
    if not is_over.wait(_TRIAL_SECONDS) or not is_whole:
        return False
    tolerance = _TOLERANCES.get(model.dtype, _COARSE_TOLERANCE)
    for number, prompt in enumerate(prompts):
        with stock_attention(model):
            alone = score(model, prompt, [token.token_id for token in told[number]])
        if any(abs(token.logprob - value) > tolerance for token, value in zip(told[number], alone, strict=True)):
            return False
    return True
