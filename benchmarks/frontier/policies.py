"""Policies as folders of transformers: drawing continuations, and the divergence from another policy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

T = TypeVar("T")
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A continuation that a policy has drawn."""

    text: str
    prompt_ids: list[int]
    token_ids: list[int]
    """With the end token, where there is one."""
    is_ended: bool


class Policy:
    """A causal model in float32 with its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ends = self.model.generation_config.eos_token_id
        self._ends = {*([ends] if isinstance(ends, int) else ends or []), self.tokenizer.eos_token_id}
        self._pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else min(self._ends)

    @torch.no_grad()
    def sample(
        self, openings: Sequence[str], *, max_new_tokens: int, temperature: float = 1.0, seed: int = 0
    ) -> list[Sample]:
        """Draw one continuation of each opening from the whole distribution; temperature 0: the likeliest tokens."""
        torch.manual_seed(seed)
        found: list[Sample] = []
        how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        for batch in _batches(openings):
            prompts = [self.tokenizer(opening)["input_ids"] for opening in batch]
            ids, mask = _padded(prompts, self._pad, left=True)
            output = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, pad_token_id=self._pad,
                eos_token_id=sorted(self._ends), **({"do_sample": False} | how),
            )  # fmt: skip
            for prompt, row in zip(prompts, output[:, ids.shape[1] :].tolist(), strict=True):
                found.append(self._sample(prompt, row))
        return found

    def _sample(self, prompt: list[int], row: list[int]) -> Sample:
        end = next((place for place, token in enumerate(row) if token in self._ends), None)
        kept = row if end is None else row[: end + 1]
        text = self.tokenizer.decode(kept if end is None else row[:end], skip_special_tokens=True)
        return Sample(text=text, prompt_ids=prompt, token_ids=kept, is_ended=end is not None)

    def log_probabilities(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Return for each sample log p over the vocabulary before each of its tokens, [tokens, vocabulary]."""
        ids, mask = _padded([[*sample.prompt_ids, *sample.token_ids] for sample in samples], self._pad, left=False)
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        found = []
        for row, sample in zip(logits, samples, strict=True):
            first = len(sample.prompt_ids) - 1
            found.append(row[first : first + len(sample.token_ids)].float().log_softmax(-1))
        return found


@torch.no_grad()
def sequence_kls(policy: Policy, reference: Policy, samples: Sequence[Sample]) -> list[float]:
    """Estimate KL(policy ‖ reference) of whole continuations, nats, from the policy's own samples at temperature 1.

    For each sample the sum over its tokens of the divergence between the two next-token distributions: without bias,
    and less noisy than the sum of log-ratios.
    """
    found: list[float] = []
    for batch in _batches(samples):
        for mine, theirs in zip(policy.log_probabilities(batch), reference.log_probabilities(batch), strict=True):
            found.append(float((mine.exp() * (mine - theirs)).sum()))
    return found


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Return ids and mask, [rows, longest]."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for place, row in enumerate(rows):
        where = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[place, where] = torch.tensor(row)
        mask[place, where] = 1
    return ids, mask


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), BATCH):
        yield items[first : first + BATCH]
