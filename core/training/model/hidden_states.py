"""Hidden states of a packed batch: in one packed row where the model allows it, else one sequence at a time.

Legend: T packed tokens, U different scored tokens, H hidden size, V vocabulary.
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
    """Some of a batch's different scored tokens in its order, with the hidden states that predict them."""

    outputs: Tensor
    """[U, H] hidden states if the engine computes the head, else [U, V] logits."""
    targets: Tensor
    """[U]"""


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
        for response in batch.responses:
            if not response.num_predicted:
                continue
            scored = slice(start, start + response.num_predicted)
            start = scored.stop
            text = torch.cat([batch.input_ids[:, first:last] for first, last in response.ranges], dim=1)
            inputs = {"input_ids": text, "use_cache": False}
            # A packed position is its own place in the sequence.
            rows = batch.position_ids[0, batch.hidden_rows[scored]]
            yield ScoredRows(_run(model, capabilities, inputs, rows), batch.targets[scored])


def _run(model: PreTrainedModel, capabilities: Capabilities, inputs: dict[str, object], rows: Tensor) -> Tensor:
    if capabilities.head is None:
        logits: Tensor = model(**inputs).logits
        return logits[0].index_select(0, rows)
    hidden: Tensor = model.base_model(**inputs).last_hidden_state
    return hidden[0].index_select(0, rows)
