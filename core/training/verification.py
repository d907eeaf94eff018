"""Does the saved policy give what the trained one gave? Asked before anything is published.

The saved folder is loaded again and scores some held-out rows, laid out as they were for the trained policy. A full
policy must give the same numbers; merging an adapter rounds, by how much depends on the precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from core.training import lora_files
from core.training.encoded_data import EncodedData
from core.training.failures import PolicyNotSavedWell
from core.training.logps import token_logps
from core.training.model import load_causal_lm
from core.training.packing import pack_pairs, pack_responses
from core.training.plan import Precision, TrainingPlan
from core.training.policies import ADAPTER_DIR, DTYPES

MAX_ROWS = 8
MAX_TOKENS = 2048
FULL_TOLERANCE = 1e-5
"""Nats a token. The same weights in the same order give the same bits; this leaves room for a device's own ways."""
MERGED_TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.1}
"""Nats a token, for weights that an adapter was added to."""


@dataclass(frozen=True)
class HeldOutLogps:
    """Token log-probabilities of some rows under the trained policy."""

    data: EncodedData
    rows: tuple[int, ...]
    values: NDArray[np.float32]
    """[S] in the order of the packed batch."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    num_rows: int
    max_difference: float
    """Largest difference of a token's log-probability, in nats."""
    tolerance: float


def measure(model: PreTrainedModel, data: EncodedData) -> HeldOutLogps:
    """Under the model as it is."""
    rows = _choose_rows(data)
    return HeldOutLogps(data, tuple(rows), _token_logps(model, data, rows))


def verify(plan: TrainingPlan, directory: Path, expected: HeldOutLogps) -> Verification:
    """Of a saved policy, and with LoRA of its adapter on the base model.

    Raises:
        PolicyNotSavedWell: it gives other numbers.
    """
    dtype = DTYPES[plan.precision]
    tolerance = FULL_TOLERANCE if plan.lora is None else MERGED_TOLERANCES[plan.precision]
    found = _difference(load_causal_lm(directory, dtype=dtype, device=plan.device), expected)
    _require("policy", found, tolerance)
    if plan.lora is not None:
        model = load_causal_lm(plan.base_model_dir, dtype=dtype, device=plan.device)
        lora_files.load_adapter(model, directory / ADAPTER_DIR)
        _require("adapter", _difference(model, expected), FULL_TOLERANCE)
    return Verification(num_rows=len(expected.rows), max_difference=found, tolerance=tolerance)


def _require(what: str, difference: float, tolerance: float) -> None:
    if not difference <= tolerance:  # NaN is no equality
        raise PolicyNotSavedWell(
            f"The saved {what} gives other log-probabilities than the trained one, by up to {difference:.2g} nats a "
            "token, and is not published."
        )


def _difference(model: PreTrainedModel, expected: HeldOutLogps) -> float:
    found = _token_logps(model, expected.data, expected.rows)
    return float(np.abs(found.astype(np.float64) - expected.values).max())


@torch.no_grad()
def _token_logps(model: PreTrainedModel, data: EncodedData, rows: Sequence[int]) -> NDArray[np.float32]:
    if data.kind == "preference":
        batch = pack_pairs(data, rows, model.device)
    else:
        batch = pack_responses(data, rows, model.device, "chosen")
    values: NDArray[np.float32] = token_logps(model, batch).values.cpu().numpy()
    return values


def _choose_rows(data: EncodedData) -> list[int]:
    """The first ones that fit; a first row that is longer alone."""
    lengths = data.prompt_lengths[:MAX_ROWS] + data.first_lengths[:MAX_ROWS] + data.second_lengths[:MAX_ROWS]
    fitting = np.flatnonzero(np.cumsum(lengths) <= MAX_TOKENS)
    return [int(row) for row in fitting] or [0]
