"""Hidden states of a packed batch: in one packed row where the model allows it, else one sequence at a time.

Legend: T packed tokens, S scored tokens, H hidden size, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.training.data.packing import PackedBatch
from core.training.model.capabilities import Capabilities, stock_attention


@dataclass(frozen=True)
class ScoredRows:
    """Some of a batch's scored tokens in its order, with the hidden states that predict them."""

    outputs: Tensor
    """[S, H] hidden states if the engine computes the head, else [S, V] logits."""
    targets: Tensor
    """[S]"""


def scored_rows(model: PreTrainedModel, capabilities: Capabilities, batch: PackedBatch) -> Iterator[ScoredRows]:
    """Yield the scored tokens of a batch, all at once or one response after another."""
    limit = capabilities.longest_packable
    if capabilities.is_packable and (limit is None or batch.longest <= limit):
        inputs = {
            "input_ids": batch.input_ids,
            "position_ids": batch.position_ids,
            "packed_layout": batch.layout,
            "use_cache": False,
        }
        yield ScoredRows(_run(model, capabilities, inputs, batch.hidden_rows), batch.targets)
        return
    with stock_attention(model):
        start = 0
        for segment_index, count in zip(batch.response_segments, batch.scored_counts, strict=True):
            scored = slice(start, start + count)
            start += count
            segment = batch.layout.segments[segment_index]
            prefix = batch.input_ids[:, segment.prefix_start : segment.prefix_end]
            own = batch.input_ids[:, segment.start : segment.end]
            inputs = {"input_ids": torch.cat((prefix, own), dim=1), "use_cache": False}
            # A packed position is its own place in the sequence.
            rows = batch.position_ids[0, batch.hidden_rows[scored]]
            yield ScoredRows(_run(model, capabilities, inputs, rows), batch.targets[scored])


def _run(model: PreTrainedModel, capabilities: Capabilities, inputs: dict[str, object], rows: Tensor) -> Tensor:
    if capabilities.head is None:
        logits: Tensor = model(**inputs).logits
        return logits[0].index_select(0, rows)
    hidden: Tensor = model.base_model(**inputs).last_hidden_state
    return hidden[0].index_select(0, rows)
