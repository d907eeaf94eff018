"""Check, before publication, that the saved reward model is the trained one, read as its users read it.

Weights are compared without any tolerance, as those of a policy are (`saved_policy_check`). Rewards of the longest real
rows are compared in float32: the engine's packed rows, plain transformers one text at a time, and plain transformers
with two texts of different length padded to a batch, which shows a wrong padding token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from core.training.data.encoded import EncodedData
from core.training.data.packing import pack_pairs
from core.training.failures import PolicyNotSavedWell
from core.training.measures import plain_scoring
from core.training.measures.saved_folder import (
    SavedPolicy,
    check_config,
    load_trained_adapter,
    longest_rows,
    require_equal_weights,
    round_merged,
    row_lengths,
)
from core.training.model.adapters.merging import trained_weights, weight_digests
from core.training.model.loading import UnsupportedModel
from core.training.model.policies import load_untrained, published_dtype
from core.training.model.reward_model import load_reward_model
from core.training.model.rewards import batch_rewards

TOLERANCE = 1e-3
"""Largest difference of a reward, as a share of the largest one (at least 1): rounding alone gives up to 1e-4."""

Rewards = NDArray[np.float64]
"""[R] of the chosen responses, then of the rejected ones."""


@dataclass(frozen=True, kw_only=True)
class RewardVerification:
    num_rows: int
    longest: int
    """Tokens of the longest prompt with response that was scored."""
    num_weights_equal: int
    """Tensors that are exactly what they must be: all."""
    max_reward_difference: float
    """Between the trained and the published reward model, over all texts."""
    reward_tolerance: float


@dataclass(frozen=True)
class _Trained:
    rewards: Rewards
    digests: dict[str, str]
    """Digests of the weights to be published."""


def verify_reward_model(saved: SavedPolicy) -> RewardVerification:
    """Check a saved reward model; raises PolicyNotSavedWell, naming what differs, when it is not the trained one."""
    rows = longest_rows(saved.data)
    check_config(Path(saved.plan.base_model_dir), saved.directory)
    trained = _read_trained(saved, rows)
    try:
        model = plain_scoring.load_plain(saved.directory, saved.device, AutoModelForSequenceClassification)
    except (OSError, ValueError, RuntimeError) as error:
        raise PolicyNotSavedWell(f"The saved reward model does not load in transformers: {error}") from error
    require_equal_weights(plain_scoring.digests(model), trained.digests, "published")
    texts = [sequence.ids for sequence in plain_scoring.sequences(saved.data, rows)]
    tolerance = TOLERANCE * max(1.0, float(np.abs(trained.rewards).max()))
    alone = plain_scoring.rewards(model, texts)
    largest = _require_close(alone, trained.rewards, tolerance, "one by one")
    shortest, longest = int(np.argmin([len(ids) for ids in texts])), int(np.argmax([len(ids) for ids in texts]))
    both = [texts[shortest], texts[longest]]
    padded = plain_scoring.rewards(model, both, padding=model.config.get_text_config().pad_token_id)
    _require_close(padded, alone[[shortest, longest]], tolerance, "as a padded batch")
    return RewardVerification(
        num_rows=len(rows),
        longest=int(row_lengths(saved.data)[rows].max()),
        num_weights_equal=len(trained.digests),
        max_reward_difference=largest,
        reward_tolerance=tolerance,
    )


def _require_close(found: Rewards, expected: Rewards, tolerance: float, how: str) -> float:
    """Return the largest difference. Raises PolicyNotSavedWell where it is beyond the tolerance."""
    largest = float(np.abs(found - expected).max())
    if not largest <= tolerance:  # NaN is no equality
        raise PolicyNotSavedWell(
            f"The saved reward model, read {how}, gives other rewards than the trained one, by up to {largest:.2g} "
            f"where {tolerance:.2g} is the limit. It is not published."
        )
    return largest


def _read_trained(saved: SavedPolicy, rows: Sequence[int]) -> _Trained:
    plan = saved.plan
    if plan.lora is None:
        try:
            model = load_reward_model(saved.directory, dtype=torch.float32, device=saved.device)
        except UnsupportedModel as error:
            raise PolicyNotSavedWell(f"The saved reward model does not load: {error.detail}") from error
        saved.adjust(model)
        return _Trained(_packed_rewards(model, saved.data, rows), saved.trained_digests)
    model = load_untrained(plan, saved.device)
    load_trained_adapter(model, saved)
    saved.adjust(model)
    dtype = published_dtype(plan)
    digests = weight_digests((weight.name, weight.rounded(dtype)) for weight in trained_weights(model))
    if dtype != torch.float32:
        round_merged(model, dtype)
    return _Trained(_packed_rewards(model, saved.data, rows), digests)


@torch.no_grad()
def _packed_rewards(model: PreTrainedModel, data: EncodedData, rows: Sequence[int]) -> Rewards:
    padding = model.config.get_text_config().pad_token_id
    rewards: Rewards = batch_rewards(model, pack_pairs(data, rows, model.device, padding)).cpu().double().numpy()
    return rewards
