"""Scoring of a saved policy as its users read it: plain transformers, float32, one unpacked sequence at a time.

Nothing of the engine takes part, so that what the engine does wrongly (a window that packing drops, a mask, a position)
shows as a difference.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from core.training.data.encoded import EncodedData
from core.training.model import rotary
from core.training.model.adapters.merging import weight_digests

_HEAD_ROWS = 512
"""Logits that are turned into log-probabilities at a time."""

Rewards = NDArray[np.float64]
"""[R] of texts."""


@dataclass(frozen=True)
class ScoredSequence:
    """One prompt with one of its responses."""

    ids: NDArray[np.int32]
    """[T]"""
    predictors: NDArray[np.int64]
    """[S] places whose next token is scored."""


def load_plain(
    directory: Path, device: str, auto_class: type[_BaseAutoModelClass] = AutoModelForCausalLM
) -> PreTrainedModel:
    """Load as the auto class's `from_pretrained` does, in float32; missing weights are an error.

    Raises:
        ValueError: the folder lacks weights of its architecture.
    """
    model, report = auto_class.from_pretrained(
        directory, dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
    )
    gaps = sorted(str(gap) for kind in ("missing_keys", "mismatched_keys") for gap in report.get(kind, ()))
    if gaps:
        raise ValueError(f"the folder lacks weights, the first being {gaps[0]}")
    found: PreTrainedModel = model.to(device).eval()
    rotary.forget_earlier_lengths(found)  # each sequence as a model reads it that was loaded for it alone
    return found


def digests(model: PreTrainedModel) -> dict[str, str]:
    """Return digests of all of a model's weights, by name."""
    return weight_digests(model.state_dict().items())


def sequences(data: EncodedData, rows: Sequence[int]) -> Iterator[ScoredSequence]:
    """Yield all chosen (or only) responses of some rows, then all rejected ones: the order of a packed batch."""
    sides = (0, 1) if data.kind == "preference" else (0,)
    for side in sides:
        for index in rows:
            row = data.row(index)
            response = (row.first, row.second)[side]
            scored = np.flatnonzero((row.first_scored, row.second_scored)[side]) + len(row.prompt)
            yield ScoredSequence(np.concatenate((row.prompt, response)), scored[scored > 0] - 1)


@torch.no_grad()
def token_logps(model: PreTrainedModel, found: Iterator[ScoredSequence]) -> NDArray[np.float64]:
    """Log-probabilities of all scored tokens, in the order of the sequences, [S]."""
    values = [_score(model, sequence) for sequence in found]
    return np.concatenate(values)


@torch.no_grad()
def rewards(model: PreTrainedModel, texts: Sequence[NDArray[np.int32]], *, padding: int | None = None) -> Rewards:
    """Compute a reward model's numbers of some texts one by one, or as one batch padded on the right, [R].

    Args:
        padding: id of the padding token; None: one by one.
    """
    if padding is None:
        found = [model(input_ids=_tensor(ids, model)[None]).logits[0] for ids in texts]
        values: Rewards = torch.cat(found).cpu().double().numpy()
        return values
    lengths = [len(ids) for ids in texts]
    batch = torch.full((len(texts), max(lengths)), padding, device=model.device)
    mask = torch.zeros_like(batch)
    for number, ids in enumerate(texts):
        batch[number, : len(ids)], mask[number, : len(ids)] = _tensor(ids, model), 1
    values = model(input_ids=batch, attention_mask=mask).logits[:, 0].cpu().double().numpy()
    return values


def _tensor(ids: NDArray[np.int32], model: PreTrainedModel) -> Tensor:
    return torch.from_numpy(ids.astype(np.int64)).to(model.device)


def _score(model: PreTrainedModel, sequence: ScoredSequence) -> NDArray[np.float64]:
    ids = _tensor(sequence.ids, model)
    places = torch.from_numpy(sequence.predictors).to(model.device)
    if "logits_to_keep" in inspect.signature(model.forward).parameters:  # the head on scored places only
        logits = model(input_ids=ids[None], logits_to_keep=places).logits[0]
    else:
        logits = model(input_ids=ids[None]).logits[0, places]
    pieces = zip(torch.split(logits, _HEAD_ROWS), torch.split(places, _HEAD_ROWS), strict=True)
    parts = [_logps(piece, ids[at + 1]) for piece, at in pieces]
    values: NDArray[np.float64] = torch.cat(parts).cpu().double().numpy()
    return values


def _logps(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.float().log_softmax(-1).gather(1, targets[:, None])[:, 0]


@torch.no_grad()
def answer_greedily(model: PreTrainedModel, prompt_ids: Sequence[int], max_new_tokens: int) -> list[int]:
    """Generate greedily with transformers' own `generate`, ended as the folder's generation_config.json says."""
    eos = model.generation_config.eos_token_id
    # Set, not passed: values that a passed one leaves out are taken from the model's own, penalties among them.
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=eos, pad_token_id=0
    )
    ids = torch.tensor([list(prompt_ids)], device=model.device)
    answer: list[int] = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids))[0, ids.shape[1] :].tolist()
    return answer


@torch.no_grad()
def is_tie(model: PreTrainedModel, prefix: Sequence[int], tokens: tuple[int, int], gap: float) -> bool:
    """Whether two given next tokens are within `gap` nats of each other, so that rounding decides between them."""
    ids = torch.tensor([list(prefix)], device=model.device)
    logits = model(input_ids=ids).logits[0, -1].float()
    return abs(float(logits[tokens[0]] - logits[tokens[1]])) <= gap
