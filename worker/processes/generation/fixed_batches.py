"""Answers in batches that the request alone determines, so that the same answers come whoever is interrupted.

Continuous batching, which serves chats, forms its batches by who asks when; another batch rounds otherwise, and a token
that hangs on the last bit is another one. Here prompts are padded on the left to one length, read once each, and go on
together with a seed of their own each.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.training.model.capabilities import capabilities_of, stock_attention
from worker.processes.generation.one_by_one import continue_alone
from worker.processes.generation.sampling import Choice, Sampler, choose, score

MAX_BATCH_TOKENS = 32_768
"""Tokens of prompts and answers that a batch may keep in its cache, padding included."""
READ_TOKENS = 4096
"""Tokens of prompts that are read in one forward pass."""
_DROPPED_SHARE = 8
"""Ended answers leave the batch when they are an eighth of it: each time the cache is copied."""
_TRIAL_LENGTHS = (5, 11, 11, 3)
_TRIAL_TOKENS = 4
_TOLERANCES = {torch.float32: 1e-3}
_COARSE_TOLERANCE = 0.3
"""Nats a token in 16 bits, the mean over an answer, since rounding alone moves single tokens by 0.25.

SmolLM2-135M with a trained adapter: 0.05 to 0.10; with padding that is attended to, 0.85 and more.
"""


@dataclass(frozen=True, kw_only=True)
class BatchSampling:
    max_tokens: int
    temperature: float
    top_p: float
    end_ids: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    prompt_ids: tuple[int, ...]
    """[P], at least one"""
    seed: int


@dataclass(kw_only=True)
class BatchAnswer:
    token_ids: list[int] = field(default_factory=list)
    """All that were generated, with the one that ends the turn."""
    logprobs: list[float] = field(default_factory=list)
    """Log-probability of each token under the model itself, in nats."""
    is_ended: bool = False
    """It came to an end token; else it has the most tokens."""

    def add(self, choice: Choice, end_ids: frozenset[int]) -> None:
        self.token_ids.append(choice.token_id)
        self.logprobs.append(choice.logprob)
        self.is_ended = choice.token_id in end_ids


class FixedBatches:
    def __init__(self, model: PreTrainedModel, sampling: BatchSampling) -> None:
        """Try whether the model gives its own log-probabilities in batches; else it answers one by one."""
        self._model = model
        self._sampling = sampling
        parameters = inspect.signature(model.forward).parameters
        self._keeps_last = "logits_to_keep" in parameters
        self._takes_positions = "position_ids" in parameters
        self.is_batched = capabilities_of(model).has_cache and self._gives_own_logprobs()

    @torch.no_grad()
    def answer(self, wanted: Sequence[Wanted]) -> list[BatchAnswer]:
        """Return an answer for each, in order."""
        answers: list[BatchAnswer] = []
        with stock_attention(self._model):
            for batch in self._batches(wanted):
                answers += self._together(batch, self._sampling) if len(batch) > 1 else [self._alone(batch[0])]
        return answers

    def _batches(self, wanted: Sequence[Wanted]) -> Iterator[Sequence[Wanted]]:
        """Yield those that go together: as many in order as the cache may hold."""
        most = MAX_BATCH_TOKENS if self.is_batched else 0
        longest_allowed = capabilities_of(self._model).longest_packable
        first, longest = 0, 0
        for index, one in enumerate(wanted):
            length = max(longest, len(one.prompt_ids) + self._sampling.max_tokens)
            is_too_long = longest_allowed is not None and length > longest_allowed
            if index > first and (is_too_long or length * (index + 1 - first) > most):
                yield wanted[first:index]
                first, length = index, len(one.prompt_ids) + self._sampling.max_tokens
            longest = length
        yield wanted[first:]

    def _alone(self, one: Wanted) -> BatchAnswer:
        answer, sampling = BatchAnswer(), self._sampling
        choices = continue_alone(self._model, one.prompt_ids, self._sampler(one, sampling))
        while not answer.is_ended and len(answer.token_ids) < sampling.max_tokens:
            answer.add(next(choices), sampling.end_ids)
        return answer

    def _together(self, batch: Sequence[Wanted], sampling: BatchSampling) -> list[BatchAnswer]:
        answers = [BatchAnswer() for _ in batch]
        samplers = [self._sampler(one, sampling) for one in batch]
        state = _State.of(batch, self._model.device)
        logits = self._read(state)
        state.select(state.rows_of_prompts)
        logits = logits[state.rows_of_prompts]
        rows = list(range(len(batch)))
        for _ in range(sampling.max_tokens):
            choices = choose(logits, [samplers[row] for row in rows])
            for row, choice in zip(rows, choices, strict=True):
                if not answers[row].is_ended:
                    answers[row].add(choice, sampling.end_ids)
            live = [place for place, row in enumerate(rows) if not answers[row].is_ended]
            if not live or len(answers[rows[live[0]]].token_ids) == sampling.max_tokens:
                break
            tokens = [choice.token_id for choice in choices]
            if (len(rows) - len(live)) * _DROPPED_SHARE >= len(rows):
                state.select(torch.tensor(live, device=self._model.device))
                rows, tokens = [rows[place] for place in live], [tokens[place] for place in live]
            logits = self._step(state, torch.tensor(tokens, device=self._model.device)[:, None])
        return answers

    def _read(self, state: "_State") -> Tensor:
        """Read the prompts [U, P], some columns at a time; return logits [U, V] after the last."""
        ids, step = state.prompts, max(1, READ_TOKENS // len(state.prompts))
        logits = None
        for start in range(0, ids.shape[1], step):
            logits = self._forward(state, ids[:, start : start + step], start)
        assert logits is not None
        return logits

    def _step(self, state: "_State", tokens: Tensor) -> Tensor:
        """Read one more token of each row, [R, 1]; return logits [R, V]."""
        start = state.mask.shape[1]
        state.mask = torch.cat((state.mask, torch.ones_like(tokens)), dim=1)
        return self._forward(state, tokens, start)

    def _forward(self, state: "_State", ids: Tensor, start: int) -> Tensor:
        mask = state.mask[:, : start + ids.shape[1]]
        optional: dict[str, Any] = {}
        if self._takes_positions:
            optional["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, start:]
        if self._keeps_last:
            optional["logits_to_keep"] = 1
        output = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=state.cache, use_cache=True, **optional
        )
        state.cache = output.past_key_values
        logits: Tensor = output.logits[:, -1]
        return logits

    def _sampler(self, one: Wanted, sampling: BatchSampling) -> Sampler:
        return Sampler(temperature=sampling.temperature, top_p=sampling.top_p, seed=one.seed)

    @torch.no_grad()
    def _gives_own_logprobs(self) -> bool:
        """Compare short answers, made together, with plain forward passes over each alone."""
        vocabulary = int(self._model.get_input_embeddings().num_embeddings)
        generator = torch.Generator().manual_seed(0)
        prompts = [tuple(torch.randint(0, vocabulary, (n,), generator=generator).tolist()) for n in _TRIAL_LENGTHS]
        prompts[2] = prompts[1]
        sampling = BatchSampling(max_tokens=_TRIAL_TOKENS, temperature=1, top_p=1, end_ids=frozenset())
        tolerance = _TOLERANCES.get(self._model.dtype, _COARSE_TOLERANCE)
        batch = [Wanted(prompt_ids=prompt, seed=seed) for seed, prompt in enumerate(prompts)]
        with stock_attention(self._model):
            try:
                answers = self._together(batch, sampling)
            except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, IndexError):
                return False
            for one, answer in zip(batch, answers, strict=True):
                alone = score(self._model, list(one.prompt_ids), answer.token_ids)
                distances = [abs(a - b) for a, b in zip(alone, answer.logprobs, strict=True)]
                if sum(distances) > tolerance * len(distances):
                    return False
        return True


@dataclass(kw_only=True)
class _State:
    """A batch under way: R rows, at first the U different prompts."""

    prompts: Tensor
    """[U, P], padded on the left"""
    rows_of_prompts: Tensor
    """[R] Place of each answer's prompt among the U."""
    mask: Tensor
    """[R, T] 1 where a token stands, 0 where padding does."""
    cache: Any = None

    @classmethod
    def of(cls, batch: Sequence[Wanted], device: torch.device) -> "_State":
        different = list(dict.fromkeys(one.prompt_ids for one in batch))
        longest = max(map(len, different))
        ids = torch.zeros((len(different), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(different):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        places = {prompt: row for row, prompt in enumerate(different)}
        rows = torch.tensor([places[one.prompt_ids] for one in batch])
        return cls(prompts=ids.to(device), rows_of_prompts=rows.to(device), mask=mask.to(device))

    def select(self, rows: Tensor) -> None:
        """Keep these rows, each as often as it is named."""
        self.mask = self.mask[rows]
        self.cache.batch_select_indices(rows)
