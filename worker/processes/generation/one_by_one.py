"""Generation for models that continuous batching cannot serve: one answer after the other, by plain forward passes."""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from core.domain.generation_protocol import End, Refused, Start
from core.training.model.capabilities import capabilities_of, stock_attention
from worker.processes.generation.batching import Emit
from worker.processes.generation.sampling import ActiveAnswer, Choice, Sampler, choose, score


class OneByOneEngine:
    """Answers in the order of their requests. `emit` is called by a thread of this class."""

    def __init__(self, model: PreTrainedModel, *, emit: Emit) -> None:
        self._model = model
        self._emit = emit
        self._waiting: queue.Queue[Start | None] = queue.Queue()
        self._wanted: set[int] = set()
        self._device = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def start(self, order: Start) -> None:
        self._wanted.add(order.number)
        self._waiting.put(order)

    def stop(self, number: int) -> None:
        self._wanted.discard(number)

    def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        """Return log-probabilities of the response's tokens, between two answers' steps."""
        with self._device, stock_attention(self._model):
            return score(self._model, prompt_ids, response_ids)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        self._wanted.clear()
        self._waiting.put(None)
        self._thread.join(5)

    def _run(self) -> None:
        while (order := self._waiting.get()) is not None:
            try:
                self._answer(order)
            except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
                self._emit(Refused(number=order.number, detail=f"The model fails on it ({type(error).__name__})."))
            self._wanted.discard(order.number)

    def _answer(self, order: Start) -> None:
        answer = ActiveAnswer.of(order)
        choices = continue_alone(self._model, order.prompt_ids, answer.sampler)
        for place in range(order.max_tokens):
            if order.number not in self._wanted:
                return
            with self._device, stock_attention(self._model):
                choice = next(choices)
            self._emit(choice.as_token(order.number))
            if choice.token_id in answer.end_ids or place + 1 == order.max_tokens:
                self._emit(End(number=order.number, reason=answer.reason_after(choice.token_id)))
                return


def continue_alone(model: PreTrainedModel, prompt_ids: Sequence[int], sampler: Sampler) -> Iterator[Choice]:
    """Yield one token after the other, without an end, by plain forward passes in the attention that is set."""
    has_cache = capabilities_of(model).has_cache
    inputs = torch.tensor([list(prompt_ids)], device=model.device)
    cache: Any = None
    while True:
        with torch.no_grad():
            output = model(input_ids=inputs, past_key_values=cache, use_cache=has_cache)
            (choice,) = choose(output.logits[:, -1], [sampler])
        yield choice
        following = torch.tensor([[choice.token_id]], device=model.device)
        cache, inputs = (
            (output.past_key_values, following) if has_cache else (None, torch.cat((inputs, following), dim=1))
        )
