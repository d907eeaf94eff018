"""Divergence of the policy from the reference, estimated on responses drawn from the reference.

KL(reference || policy) = E over responses y of the reference of log reference(y) - log policy(y). The responses are
drawn once, before the first update, when policy and reference are the same model; later evaluations need no second
model, and a resumed run has the draws from its checkpoint. Every estimate is over the same draws, so that a curve moves
with the policy and not with chance.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from core.domain.training import metric_names as names
from core.training.data.encoded import EncodedData
from core.training.model.capabilities import stock_attention
from core.training.model.generation import generate
from core.training.plan import TrainingPlan
from core.training.seeding import derive_seed
from core.training.steps.figures import Figures, finite

NUM_PROMPTS = 8
MAX_PROMPT_TOKENS = 1024
MAX_NEW_TOKENS = 24

Draw = dict[str, Any]
"""`tokens` of the response, its end token included, and `logp` of all of them under the reference."""


class SampledKl:
    """Estimates the divergence without any effect on the run: it draws from random generators of its own."""

    def __init__(self, plan: TrainingPlan, data: EncodedData | None) -> None:
        """Take the prompts of `data`, the held-out rows."""
        self._plan = plan
        rows = [] if data is None else [data.row(index) for index in range(min(len(data), NUM_PROMPTS))]
        self._prompts = [row.prompt.tolist()[-MAX_PROMPT_TOKENS:] for row in rows if len(row.prompt)]
        self.draws: list[Draw] = []
        """One for each prompt; kept in checkpoints."""

    def draw(self, reference: PreTrainedModel) -> None:
        """Draw the responses that are missing, from the policy before its first update."""
        for index, prompt in enumerate(self._prompts[len(self.draws) :], len(self.draws)):
            seed = derive_seed(self._plan.seed, "sampled-kl", index)
            response = generate(
                reference, prompt, MAX_NEW_TOKENS, self._plan.eos_token_ids, temperature=1.0, seed=seed, keeps_end=True
            )
            self.draws.append({"tokens": response, "logp": _logp(reference, prompt, response)})

    def figures(self, policy: PreTrainedModel) -> Figures:
        """Return the estimate as figures, or none without prompts."""
        if not self.draws:
            return {}
        pairs = list(zip(self._prompts, self.draws, strict=True))
        log_ratio = sum(draw["logp"] - _logp(policy, prompt, draw["tokens"]) for prompt, draw in pairs)
        num_tokens = sum(len(draw["tokens"]) for draw in self.draws)
        return finite({names.SAMPLED_KL: log_ratio / len(pairs), names.SAMPLED_KL_PER_TOKEN: log_ratio / num_tokens})


@torch.no_grad()
def _logp(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> float:
    """Log-probability of the whole response, in nats."""
    inputs = torch.tensor([[*prompt, *response]], device=model.device)
    with stock_attention(model):
        logits = model(input_ids=inputs, use_cache=False).logits[0, len(prompt) - 1 : -1]
    logps = logits.float().log_softmax(-1)
    return float(logps.gather(-1, inputs[0, len(prompt) :, None]).double().sum())
