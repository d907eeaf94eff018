"""Choice of the next token of each answer, with the log-probabilities of the model itself."""

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.domain.generation_protocol import Start, Token
from core.training.model.capabilities import capabilities_of

SCORED_TOKENS = 512
"""Tokens that are scored in one forward pass."""
LEAST_TEMPERATURE = 1e-5
"""Below it the likeliest token is as good as certain, and logits divided by the temperature overflow."""


@dataclass(kw_only=True)
class Sampler:
    """Sampling of one answer: its own settings and its own random numbers, whoever is answered beside it."""

    temperature: float
    top_p: float
    seed: int
    top_logprobs: int = 0
    _generator: torch.Generator = field(default_factory=torch.Generator, init=False)

    def __post_init__(self) -> None:
        self._generator.manual_seed(self.seed)

    def choose(self, logits: Tensor) -> int:
        """Return the token for logits [V] in float32 on the CPU."""
        if self.temperature < LEAST_TEMPERATURE:
            return int(logits.argmax())
        weights = (logits / self.temperature).softmax(-1)
        if self.top_p < 1:
            weights = _nucleus(weights, self.top_p)
        return int(torch.multinomial(weights, 1, generator=self._generator))


@dataclass(frozen=True, kw_only=True)
class ActiveAnswer:
    """An answer under way."""

    sampler: Sampler
    end_ids: Collection[int]

    @classmethod
    def of(cls, order: Start) -> "ActiveAnswer":
        sampler = Sampler(
            temperature=order.temperature, top_p=order.top_p, seed=order.seed, top_logprobs=order.top_logprobs
        )
        return cls(sampler=sampler, end_ids=frozenset(order.end_ids))

    def reason_after(self, last_token: int) -> str:
        """Return why the answer ended."""
        return "stop" if last_token in self.end_ids else "length"


@dataclass(frozen=True, kw_only=True)
class Choice:
    token_id: int
    logprob: float
    top: list[tuple[int, float]]

    def as_token(self, number: int) -> Token:
        return Token(number=number, token_id=self.token_id, logprob=self.logprob, top=self.top)


def choose(logits: Tensor, samplers: list[Sampler]) -> list[Choice]:
    """Choose a token for each row of logits [B, V], of whatever type and device."""
    rows = logits.float()
    chosen = rows.argmax(-1).cpu()
    if any(sampler.temperature > 0 for sampler in samplers):
        on_host = rows.cpu()
        chosen = torch.tensor([sampler.choose(row) for sampler, row in zip(samplers, on_host, strict=True)])
    normaliser = rows.logsumexp(-1)
    logprobs = (rows.gather(-1, chosen.to(rows.device)[:, None])[:, 0] - normaliser).tolist()
    most = max(sampler.top_logprobs for sampler in samplers)
    tops: list[list[tuple[int, float]]] = [[] for _ in samplers]
    if most:
        values, ids = rows.topk(min(most, rows.shape[-1]), dim=-1)
        values = values - normaliser[:, None]
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        tops = [
            list(zip(tokens, found, strict=True))[: sampler.top_logprobs]
            for sampler, (tokens, found) in zip(samplers, pairs, strict=True)
        ]
    return [
        Choice(token_id=token, logprob=logprob, top=top)
        for token, logprob, top in zip(chosen.tolist(), logprobs, tops, strict=True)
    ]


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """Keep the fewest tokens that together have the probability `top_p`, at least one."""
    sorted_weights, order = weights.sort(descending=True)
    is_kept = sorted_weights.cumsum(-1) - sorted_weights < top_p
    is_kept[0] = True  # also where `top_p` is 0 in float32
    kept = torch.zeros_like(weights)
    kept[order[is_kept]] = sorted_weights[is_kept]
    return kept


@torch.no_grad()
def score(model: PreTrainedModel, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
    """Return the log-probability of each response token after the prompt, by plain forward passes."""
    ids = torch.tensor([[*prompt_ids, *response_ids]], device=model.device)
    num_tokens, has_cache = ids.shape[1], capabilities_of(model).has_cache
    step = SCORED_TOKENS if has_cache else num_tokens
    found: list[float] = []
    cache = None
    for start in range(0, num_tokens - 1, step):
        end = min(start + step, num_tokens - 1)
        output = model(input_ids=ids[:, start:end], past_key_values=cache, use_cache=has_cache)
        cache = output.past_key_values if has_cache else None
        first = max(start, len(prompt_ids) - 1)
        if first < end:
            logits = output.logits[0, first - start : end - start].float()
            targets = ids[0, first + 1 : end + 1, None]
            found += (logits.gather(-1, targets)[:, 0] - logits.logsumexp(-1)).tolist()
    return found
