"""Where a prompt that stands once for both responses saves work: an account of operations, row by row.

Sharing saves the layers' products for the prompt's tokens, once. It costs where attention skips nothing: a response
after a shared prompt attends under a mask over all p + r keys, while a sequence of its own is causal and needs half of
its (p + r)² scores. So long responses after short prompts are cheaper apart. CUDA's kernel for packed rows is causal in
both cases, and there sharing always pays.

Legend: p tokens of the prompt, r of the second response.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

MIN_PROMPT_TOKENS = 4
"""A shorter prompt costs less to compute twice than to attend to as a prefix."""
SKIPPED_SHARE = 0.35
"""Of the scores that causality makes needless, what a CPU's kernel, which works in blocks, saves in time; with this
share the account has the sign of what was measured for nine pairs of lengths (`docs/performance.md`)."""


@dataclass(frozen=True, kw_only=True)
class SharingAccount:
    """Operations of a forward pass; a backward pass has twice as many of either kind."""

    token_flops: float = 1.0
    """Of one token in all layers: the products with their weights."""
    score_flops: float = 0.0
    """Of one query with one key, in all heads of all layers, where causality skips it; 0 where masks cost nothing."""

    def pays(self, prompts: NDArray[np.int64], responses: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For each row."""
        together = prompts + responses
        saved = self.token_flops * prompts
        lost = self.score_flops * together * (responses - together / 2)
        return (prompts >= MIN_PROMPT_TOKENS) & (saved > lost)


ALWAYS = SharingAccount()
"""From a few tokens on."""


def account_of(model: PreTrainedModel) -> SharingAccount:
    """From the shapes of its weights and heads."""
    if model.device.type == "cuda":
        return ALWAYS
    config = model.config.get_text_config()
    embeddings = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer}
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1 and id(p) not in embeddings)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    scores = config.num_hidden_layers * config.num_attention_heads * head_size
    return SharingAccount(token_flops=2.0 * weights, score_flops=SKIPPED_SHARE * 4.0 * scores)
