"""Divergence of the policy from the reference, estimated on answers of the policy's own.

KL(policy || reference) is the mean over answers y drawn from the policy of log p_policy(y) - log p_reference(y): the
quantity that beta weighs against the reward (arXiv:2305.18290, eq. 3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from core.domain.training import encoded_format
from core.training.data.encoded import EncodedData
from core.training.data.packing import pack_responses
from core.training.model.generation import generate
from core.training.model.logps import response_logps
from core.training.observer import JsonValue
from core.training.plan import TrainingPlan
from core.training.seeding import derive_seed


@dataclass(frozen=True)
class Answers:
    """Answers drawn from the policy, with their log-probabilities under it."""

    data: EncodedData
    policy_sums: NDArray[np.float64]
    """[N]"""


def draw_answer(model: PreTrainedModel, plan: TrainingPlan, prompt_index: int) -> list[int]:
    """Draw one answer at temperature 1 with a fixed seed; an end token that was drawn is kept."""
    seed = derive_seed(plan.seed, "answer", prompt_index) % 2**63
    prompt, eos = plan.sample_prompts[prompt_index], plan.eos_token_ids
    return generate(model, prompt, plan.max_new_tokens, eos, temperature=1.0, seed=seed, keeps_end=True)


def score_answers(model: PreTrainedModel, plan: TrainingPlan, drawn: Sequence[Sequence[int]]) -> Answers | None:
    """Compute the drawn answers' log-probabilities; None without an answer of at least one token."""
    pairs = [(prompt, answer) for prompt, answer in zip(plan.sample_prompts, drawn, strict=True) if answer]
    if not pairs:
        return None
    data = responses_in_memory(pairs)
    return Answers(data, _sums(model, data))


def describe_drift(reference: PreTrainedModel, answers: Answers) -> dict[str, JsonValue]:
    """Return the estimated divergence in nats per answer and per token."""
    ratios = answers.policy_sums - _sums(reference, answers.data)
    num_tokens = int(answers.data.first_lengths.sum())
    spread = float(ratios.std(ddof=1)) / math.sqrt(len(ratios)) if len(ratios) > 1 else None
    return {
        "num_answers": len(ratios),
        "kl": float(ratios.mean()),
        "standard_error": spread,
        "kl_per_token": float(ratios.sum()) / num_tokens,
    }


def responses_in_memory(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> EncodedData:
    """Return (prompt, response) token ids as encoded data in which every response token is scored."""
    tokens, rows, start = [], [], 0
    for number, (prompt, response) in enumerate(pairs):
        first, end = start + len(prompt), start + len(prompt) + len(response)
        rows.append((number, start, first, end, end, 0))
        tokens += [*prompt, *response]
        start = end
    return EncodedData(
        {"kind": "demonstration", "digest": ""},
        np.asarray(tokens, np.int32),
        np.ones(len(tokens), np.uint8),
        np.asarray(rows, np.int64).reshape(-1, len(encoded_format.COLUMNS)),
    )


@torch.no_grad()
def _sums(model: PreTrainedModel, data: EncodedData) -> NDArray[np.float64]:
    """Sum the log-probabilities of each answer, one forward pass per answer since there are few."""
    found = [float(response_logps(model, pack_responses(data, [row], model.device)).sums) for row in range(len(data))]
    return np.asarray(found, np.float64)
