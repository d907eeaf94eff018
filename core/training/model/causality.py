"""Test whether a model is a causal language model: no token's prediction depends on a later token.

Encoders (BERT and its kin) load as causal LMs in transformers, and would be trained on losses that see their targets.

Legend: T tokens, H hidden size, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_NUM_TOKENS = 12
_GRADIENT_LIMIT = 1e-5
"""Gradient at the last token beside the largest of an earlier one; a causal model has exactly 0."""
_VALUE_LIMIT = 1e-4
"""Change of earlier logits relative to their size, where no gradient tells."""


Outputs = Callable[[Tensor], Tensor]
"""Token ids [1, T] to what a model says of each token, [T, V]: logits, or hidden states where it has no LM head."""


def is_causal(model: PreTrainedModel, outputs: Outputs | None = None) -> bool:
    """Whether outputs before the last token have no gradient with respect to the last token's embedding.

    Gradients tell in any precision, which a change of values in bf16 does not. The model must attend as transformers
    would.

    Args:
        outputs: of the model; None: its logits.
    """
    outputs = outputs or partial(_logits, model)
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (1, _NUM_TOKENS), generator=generator).to(model.device)
    gradients = _embedding_gradients(model, ids, outputs, generator)
    if gradients is not None:
        earlier = gradients[:-1].max()
        if bool(torch.isfinite(gradients).all()) and float(earlier) > 0:
            return bool(gradients[-1] <= _GRADIENT_LIMIT * earlier)
    return _keeps_earlier_outputs(outputs, ids, vocabulary)


def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0]


def _embedding_gradients(
    model: PreTrainedModel, ids: Tensor, outputs: Outputs, generator: torch.Generator
) -> Tensor | None:
    """Norms of the gradient of the outputs before the last token, [T]; None where embeddings are not looked up so."""
    leaves: list[Tensor] = []
    with torch.enable_grad(), _embedding_hook(model, leaves):
        earlier = outputs(ids)[:-1].float()
        weights = torch.randn(earlier.shape, generator=generator).to(earlier.device)
        if not leaves or not earlier.requires_grad or leaves[0].shape[:2] != ids.shape:
            return None
        found: Tensor | None = torch.autograd.grad((earlier * weights).sum(), leaves[:1], allow_unused=True)[0]
    if found is None:
        return None
    norms: Tensor = found[0].float().flatten(1).norm(dim=-1)
    return norms


def _embedding_hook(model: PreTrainedModel, leaves: list[Tensor]) -> Any:
    """Return a context manager in which embeddings become leaves of the graph, collected in `leaves`."""

    def detach(module: nn.Module, args: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()  # models may scale it in place

    register: Callable[..., Any] = model.get_input_embeddings().register_forward_hook
    return register(detach)


@torch.no_grad()
def _keeps_earlier_outputs(outputs: Outputs, ids: Tensor, vocabulary: int) -> bool:
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % vocabulary
    before, after = (outputs(tokens)[:-1].float() for tokens in (ids, other))
    is_finite = torch.isfinite(before) & torch.isfinite(after)  # weights that are NaN are found by the first loss
    before, after = before[is_finite], after[is_finite]
    return bool((before - after).norm() <= _VALUE_LIMIT * before.norm())
