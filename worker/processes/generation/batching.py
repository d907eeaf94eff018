"""Generation by transformers' continuous batching: requests join and leave between two steps of one forward pass.

transformers schedules, keeps the cache in pages and shares equal prompts; its own sampling knows neither a seed for
each request nor log-probabilities before the temperature. So a logits processor, where it lets requests have settings
of their own, chooses the token of each request and leaves it no other.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.requests import RequestStatus

from core.domain.generation_protocol import End, Refused, Start, Token
from core.training.model.capabilities import capabilities_of, stock_attention
from worker.processes.generation.sampling import ActiveAnswer, Sampler, choose, score

PAGE_TOKENS = 64
MAX_STEP_TOKENS = 512
"""Tokens of one forward pass: a long prompt is read in parts, beside the answers under way."""
_TICK_SECONDS = 0.5
_FAILED = "The engine failed on this request; the runner's log says more."

Emit = Callable[[Token | End | Refused], None]


class NotBatchable(Exception):
    """Raised for a model that continuous batching cannot serve."""


class BatchingEngine:
    """All answers under way. `emit` is called by threads of this class."""

    def __init__(self, model: PreTrainedModel, *, max_sequences: int, max_context: int, emit: Emit) -> None:
        """Start the threads that generate. Raises NotBatchable."""
        self._emit = emit
        self._chooser = _Chooser(emit)
        model.set_attn_implementation(_attention_for(model))
        num_tokens = max(max_context, 1024 * max_sequences)
        config = ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=-(-num_tokens // PAGE_TOKENS) + max_sequences,
            max_batch_tokens=MAX_STEP_TOKENS,
            max_requests_per_batch=max_sequences,
            use_cuda_graph=False,  # the choice of tokens is Python
            use_async_batching=False,
            auto_switch_to_flash=False,
            allow_block_sharing=True,
        )
        try:
            generation = GenerationConfig(do_sample=False, max_new_tokens=1)
            self._manager: Any = model.init_continuous_batching(
                generation_config=generation, continuous_batching_config=config
            )
        except (ValueError, AttributeError, NotImplementedError, TypeError) as error:
            raise NotBatchable(str(error)) from error
        processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([self._chooser]))
        processors.tensors_required = 1
        self._manager.logit_processor = processors
        self._model = model
        self._is_closed = threading.Event()
        self._manager.start()
        self._thread = threading.Thread(target=self._watch, name="ends", daemon=True)
        self._thread.start()

    def start(self, order: Start) -> None:
        name = str(order.number)
        self._chooser.active[name] = ActiveAnswer.of(order)
        added = self._manager.add_request(
            order.prompt_ids, request_id=name, max_new_tokens=order.max_tokens, eos_token_id=order.end_ids
        )
        if added is None:
            self._chooser.active.pop(name, None)
            self._emit(Refused(number=order.number, detail=_FAILED))

    def stop(self, number: int) -> None:
        if self._chooser.active.pop(str(number), None) is not None:
            self._manager.cancel_request(str(number))

    @torch.no_grad()
    def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        """Return log-probabilities of the response's tokens, between two steps of generation."""
        with self._manager.pause(), stock_attention(self._model):
            return score(self._model, prompt_ids, response_ids)

    @property
    def is_alive(self) -> bool:
        return bool(self._manager.is_running())

    def close(self) -> None:
        self._is_closed.set()
        self._manager.stop(block=True, timeout=5, hard_stop=True)

    def _watch(self) -> None:
        """Tell of every request that has ended."""
        while not self._is_closed.is_set():
            try:
                output = self._manager.output_router.output_queue.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                continue
            answer = self._chooser.active.pop(output.request_id, None)
            if answer is None:
                continue  # it was stopped
            number = int(output.request_id)
            if output.status == RequestStatus.FINISHED and output.generated_tokens:
                self._emit(End(number=number, reason=answer.reason_after(output.generated_tokens[-1])))
            else:
                self._emit(Refused(number=number, detail=_FAILED))


class _Chooser(ContinuousBatchingLogitsProcessor):
    """Chooses the next token of each request, tells it, and leaves it as the only one."""

    supported_kwargs: ClassVar[dict[str, type]] = {}
    ignored_kwargs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, emit: Emit) -> None:
        self.active: dict[str, ActiveAnswer] = {}
        """Answers by request; one that is not here any more was stopped."""
        self._emit = emit
        self._batch: list[str] = []
        self._spare = Sampler(temperature=0, top_p=1, seed=0)

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Tensor:
        self._batch = [request.state.request_id for request in requests_with_new_token]
        return torch.zeros(len(self._batch), dtype=torch.int32)

    def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
        names = self._batch
        answers = [self.active.get(name) for name in names]
        samplers = [self._spare if answer is None else answer.sampler for answer in answers]
        choices = choose(scores[: len(names)], samplers)
        forced = torch.full_like(scores, -torch.inf)
        for row, (name, answer, choice) in enumerate(zip(names, answers, choices, strict=True)):
            forced[row, choice.token_id] = 0
            if answer is not None:
                self._emit(choice.as_token(int(name)))
        forced[len(names) :, 0] = 0
        return forced


def _attention_for(model: PreTrainedModel) -> str:
    stock = capabilities_of(model).stock_attention
    return "paged|eager" if stock == "eager" else "sdpa"
