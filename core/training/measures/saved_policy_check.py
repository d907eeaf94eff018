"""Does the saved policy give what the trained one gave? Asked before anything is published.

The saved folder is loaded again and scores some held-out rows, laid out as they were for the trained policy. A full
policy must give the same numbers. Adding an adapter to weights rounds them: in float32 hardly, in bf16 so much that
single tokens move by half a nat, and only the mean tells a rounded policy from another one. What the adapter alone must
give, to the same digits as a full policy, shows that training was saved well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from core.training.data.encoded import EncodedData
from core.training.data.packing import pack_pairs, pack_responses
from core.training.failures import PolicyNotSavedWell
from core.training.model import adapter_files
from core.training.model.loading import load_causal_lm
from core.training.model.logps import token_logps
from core.training.model.policies import ADAPTER_DIR, DTYPES
from core.training.plan import TrainingPlan

MAX_ROWS = 8
MAX_TOKENS = 2048
FULL_TOLERANCE = 1e-5
"""Nats a token. The same weights in the same order give the same bits; this leaves room for a device's own ways."""
MERGED_TOLERANCE = 1e-4
"""Nats a token, for float32 weights that an adapter was added to."""
ROUNDED_MEAN_TOLERANCE = 0.2
"""Nats, mean over tokens, for bf16 weights that an adapter was added to. SmolLM2-135M after 125 steps at rank 16: 0.05
(single tokens 0.53; with float32 arithmetic on the same weights 0.03 and 0.59), and 0.45 from its base model."""


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
    mean_difference: float
    max_difference: float
    """Of tokens' log-probabilities, in nats."""
    tolerance: float
    """Of the largest difference; with an adapter added to bf16 weights, of the mean."""


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
    found = _differences(load_causal_lm(directory, dtype=dtype, device=plan.device), expected)
    if plan.lora is None:
        return judge("policy", found, expected, FULL_TOLERANCE)
    model = load_causal_lm(plan.base_model_dir, dtype=dtype, device=plan.device)
    adapter_files.load_adapter(model, directory / ADAPTER_DIR)
    judge("adapter", _differences(model, expected), expected, FULL_TOLERANCE)
    if plan.precision == "bf16":
        return judge("policy", found, expected, ROUNDED_MEAN_TOLERANCE, by_mean=True)
    return judge("policy", found, expected, MERGED_TOLERANCE)


def judge(
    what: str, differences: NDArray[np.float64], expected: HeldOutLogps, tolerance: float, *, by_mean: bool = False
) -> Verification:
    """Whether tokens' differences, [S] in nats, are within the tolerance. Raises PolicyNotSavedWell."""
    mean, largest = float(differences.mean()), float(differences.max())
    if not (mean if by_mean else largest) <= tolerance:  # NaN is no equality
        raise PolicyNotSavedWell(
            f"The saved {what} gives other log-probabilities than the trained one, by up to {largest:.2g} nats a "
            f"token and {mean:.2g} on average, and is not published."
        )
    return Verification(num_rows=len(expected.rows), mean_difference=mean, max_difference=largest, tolerance=tolerance)


def _differences(model: PreTrainedModel, expected: HeldOutLogps) -> NDArray[np.float64]:
    found = _token_logps(model, expected.data, expected.rows)
    return np.abs(found.astype(np.float64) - expected.values)


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
