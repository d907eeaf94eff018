"""Log-probabilities of the responses of a packed batch under a model.

Legend: B rows, R responses, L scored tokens of the longest response, S scored tokens of the batch, U different ones.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.training.data.packing import PackedBatch
from core.training.kernels.lm_head import HeadWeights, linear_logps
from core.training.losses.values import PairLogps, ResponseLogps
from core.training.model.capabilities import Capabilities, capabilities_of
from core.training.model.hidden_states import ScoredRows, scored_rows

SHARDED_SCORING = "preftune_score_tokens"
"""Name of `score_tokens` as a method of a model that is spread over several devices: it puts the weights together."""


@dataclass(frozen=True)
class TokenLogps:
    """Every scored token of a batch, in its order (chosen responses first, then rejected ones)."""

    values: Tensor
    """[S] float32 log p of the token given the ones before it."""
    hits: Tensor
    """[S] bool: whether it is the likeliest token there."""
    log_collisions: Tensor | None = None
    """[S] float32 detached log(sum over the vocabulary of p²), for WPO's weights."""


def token_logps(model: PreTrainedModel, batch: PackedBatch, *, needs_token_weights: bool = False) -> TokenLogps:
    """Compute log-probabilities of scored tokens in one forward pass; with a graph if gradients are enabled.

    Args:
        model: loaded by `core.training.model.loading.load_causal_lm`.
        needs_token_weights: also `log_collisions`.

    Raises:
        ValueError: the model was not prepared by `load_causal_lm`.
    """
    score = getattr(model, SHARDED_SCORING, None) or partial(score_tokens, model)
    values, hits, collisions = score(batch, needs_token_weights)
    if batch.scored_places is not None:
        values, hits = (part.index_select(0, batch.scored_places) for part in (values, hits))
        collisions = None if collisions is None else collisions.index_select(0, batch.scored_places)
    return TokenLogps(values, hits, collisions)


def score_tokens(
    model: PreTrainedModel, batch: PackedBatch, needs_token_weights: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return values, hits, and on request collisions, of the batch's different scored tokens, [U]."""
    capabilities = capabilities_of(model)
    parts = [_score(model, capabilities, rows, needs_token_weights) for rows in scored_rows(model, capabilities, batch)]
    if len(parts) == 1:
        return parts[0]
    values, hits, collisions = zip(*parts, strict=True)
    known = [found for found in collisions if found is not None]
    return torch.cat(values), torch.cat(hits), torch.cat(known) if known else None


def pair_logps(
    model: PreTrainedModel,
    batch: PackedBatch,
    *,
    needs_token_weights: bool = False,
    needs_prefix_sums: bool = False,
) -> PairLogps:
    """Score both responses of every pair in one forward pass; with a graph if gradients are enabled."""
    tokens = token_logps(model, batch, needs_token_weights=needs_token_weights)
    return reduce_pairs(tokens, batch, needs_prefix_sums=needs_prefix_sums)


def response_logps(model: PreTrainedModel, batch: PackedBatch, *, needs_token_weights: bool = False) -> ResponseLogps:
    """Score the response of every row in one forward pass; with a graph if gradients are enabled."""
    return reduce_responses(token_logps(model, batch, needs_token_weights=needs_token_weights), batch)


def reduce_pairs(tokens: TokenLogps, batch: PackedBatch, *, needs_prefix_sums: bool = False) -> PairLogps:
    """Reduce token log-probabilities, fresh or cached, to the form that the losses take.

    Raises:
        ValueError: the batch holds single responses, or the tokens are not this batch's.
    """
    if not batch.is_pairs:
        raise ValueError("the batch holds single responses, not pairs")
    padded = _pad(tokens.values, batch)
    sums = padded.sum(1)
    prefix_sums = sums
    if needs_prefix_sums:
        counts = batch.num_scored_tokens
        shared = torch.minimum(*counts.chunk(2)).repeat(2)
        places = torch.arange(padded.shape[1], device=padded.device)
        prefix_sums = padded.masked_fill(places >= shared[:, None], 0.0).sum(1)
    chosen, rejected = (
        ResponseLogps(*parts)
        for parts in zip(
            sums.chunk(2),
            batch.num_scored_tokens.chunk(2),
            prefix_sums.chunk(2),
            _log_weights(tokens, batch),
            strict=True,
        )
    )
    return PairLogps(chosen, rejected)


def reduce_responses(tokens: TokenLogps, batch: PackedBatch) -> ResponseLogps:
    """Reduce token log-probabilities, fresh or cached, of a batch of single responses.

    Raises:
        ValueError: the batch holds pairs, or the tokens are not this batch's.
    """
    if batch.is_pairs:
        raise ValueError("the batch holds pairs, not single responses")
    sums = _pad(tokens.values, batch).sum(1)
    weights = _mean_log_weights(tokens, batch)
    return ResponseLogps(sums, batch.num_scored_tokens, sums, weights)


def response_hits(tokens: TokenLogps, batch: PackedBatch) -> Tensor:
    """Return how many scored tokens of each response are the likeliest ones, [R] float32."""
    return _pad(tokens.hits.float(), batch).sum(1)


def _score(
    model: PreTrainedModel, capabilities: Capabilities, rows: ScoredRows, needs_token_weights: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    if capabilities.head is None:
        logps = torch.log_softmax(rows.outputs.float(), dim=-1)
        values = logps.gather(1, rows.targets[:, None])[:, 0]
        collisions = torch.logsumexp(2 * logps.detach(), dim=-1) if needs_token_weights else None
        return values, rows.outputs.argmax(-1) == rows.targets, collisions
    layer = model.get_output_embeddings()
    head = HeadWeights(
        weight=layer.weight,
        bias=getattr(layer, "bias", None),
        scale=capabilities.head.scale,
        softcap=capabilities.head.softcap,
    )
    values, collisions, hits = linear_logps(rows.outputs, rows.targets, head, needs_collisions=needs_token_weights)
    return values, hits, collisions


def _log_weights(tokens: TokenLogps, batch: PackedBatch) -> tuple[Tensor | None, ...]:
    weights = _mean_log_weights(tokens, batch)
    return (None, None) if weights is None else weights.chunk(2)


def _mean_log_weights(tokens: TokenLogps, batch: PackedBatch) -> Tensor | None:
    """Detached mean over t of log p_t - log(sum over the vocabulary of p²), [R] (arXiv:2406.11827, eq. 4)."""
    if tokens.log_collisions is None:
        return None
    padded = _pad(tokens.values.detach() - tokens.log_collisions, batch)
    return padded.sum(1) / batch.num_scored_tokens


def _pad(values: Tensor, batch: PackedBatch) -> Tensor:
    """Pad [S] to [R, L] with zeros, whose sums are the same bits on every run, unlike atomic additions."""
    if values.shape != batch.padded_slots.shape:
        raise ValueError(f"{values.shape[0]} token log-probabilities for {batch.num_scored} scored tokens")
    longest = max(batch.scored_counts)
    padded = values.new_zeros(batch.num_responses * longest)
    return padded.index_copy(0, batch.padded_slots, values).view(batch.num_responses, longest)
