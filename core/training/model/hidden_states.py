"""Hidden states of a packed batch: in one packed row where the model allows it, else one sequence at a time.

Legend: T packed tokens, U different scored tokens, R responses, H hidden size, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.training.data.packing import PackedBatch, PackedResponse
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
    if _runs_packed(capabilities, batch):
        yield ScoredRows(_run(model, capabilities, _packed_inputs(batch), batch.hidden_rows), batch.targets)
        return
    with stock_attention(model):
        start = 0
        for response in batch.responses:
            if not response.num_predicted:
                continue
            scored = slice(start, start + response.num_predicted)
            start = scored.stop
            inputs = _inputs_alone(batch, response)
            # A packed position is its own place in the sequence.
            rows = batch.position_ids[0, batch.hidden_rows[scored]]
            yield ScoredRows(_run(model, capabilities, inputs, rows), batch.targets[scored])


def end_states(model: PreTrainedModel, capabilities: Capabilities, batch: PackedBatch) -> Tensor:
    """Return the hidden state of each response's last token that is no padding token, [R, H]."""
    if _runs_packed(capabilities, batch):
        packed: Tensor = model.base_model(**_packed_inputs(batch)).last_hidden_state
        return packed[0].index_select(0, batch.ends)
    found: dict[object, Tensor] = {}
    with stock_attention(model):
        for number, response in enumerate(batch.responses):
            if response.ranges not in found:  # equal texts run once
                hidden = model.base_model(**_inputs_alone(batch, response)).last_hidden_state
                place = batch.position_ids[0, batch.ends[number : number + 1]]
                found[response.ranges] = hidden[0].index_select(0, place)
    return torch.cat([found[response.ranges] for response in batch.responses])


def _runs_packed(capabilities: Capabilities, batch: PackedBatch) -> bool:
    limit = capabilities.longest_packable
    return capabilities.is_packable and (limit is None or batch.longest <= limit)


def _packed_inputs(batch: PackedBatch) -> dict[str, object]:
    return {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "packed_layout": batch.layout,
        "use_cache": False,
    }


def _inputs_alone(batch: PackedBatch, response: PackedResponse) -> dict[str, object]:
    text = torch.cat([batch.input_ids[:, first:last] for first, last in response.ranges], dim=1)
    return {"input_ids": text, "use_cache": False}


def _run(model: PreTrainedModel, capabilities: Capabilities, inputs: dict[str, object], rows: Tensor) -> Tensor:
    if capabilities.head is None:
        logits: Tensor = model(**inputs).logits
        return logits[0].index_select(0, rows)
    hidden: Tensor = model.base_model(**inputs).last_hidden_state
    return hidden[0].index_select(0, rows)
