"""Check, before publication, that the saved policy is the trained one, read as its users read it.

Weights are compared without any tolerance. With LoRA the base model and the saved adapter, read from their files, must
give the published weights: round(base + update), tensor by tensor; the saved adapter must be the trained one. Without
LoRA the published weights must be the trained ones.

What is computed from them is compared by log-probabilities of the longest real rows: plain transformers, unpacked, one
sequence at a time, beside the engine's packed rows, both in float32 arithmetic, in which a difference means another
function. The limit is a small part of what training has moved, so that no job's base model can pass in its policy's
place. Then both answer a prompt greedily: the answers and the token that ends them must be the same.
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
from core.training.model.generation import generate
from core.training.model.loading import UnsupportedModel, load_causal_lm
from core.training.model.logps import token_logps
from core.training.model.policies import load_untrained, published_dtype

MAX_TOLERANCE = 5e-3
"""Nats, of any token, between packed and plain float32 arithmetic: deep models differ by 1e-4 in rounding alone."""
MEAN_TOLERANCE = 1e-4
"""Nats a token, on average."""
LEARNT_SHARE = 0.05
"""The mean difference may be at most that part of the mean change from the base model."""
NOISE = 2e-5
"""Nats a token: a job that has moved less has learnt nothing that could be told from rounding: a unit in the last place
of a float32 log-probability is 1e-6, and a deep model adds some up. Its weights are compared exactly all the same."""
TIE = 1e-3
"""Nats between two next tokens of which either may come first."""
_MAX_ANSWER_TOKENS = 64

Values = NDArray[np.float64]
"""[S] token log-probabilities, chosen responses first."""


@dataclass(frozen=True, kw_only=True)
class Margins:
    """Mean log-probability of chosen over rejected responses, S_w - S_l, of the rows scored; by float32 arithmetic."""

    base: float
    trained: float
    published: float

    @property
    def share_kept(self) -> float | None:
        """Share of the trained change of the margin that the published policy keeps; None where nothing was learnt."""
        moved = self.trained - self.base
        return (self.published - self.base) / moved if moved else None


@dataclass(frozen=True, kw_only=True)
class PolicyVerification:
    num_rows: int
    longest: int
    """Tokens of the longest prompt with response that was scored."""
    num_weights_equal: int
    """Tensors that are exactly what they must be: all."""
    mean_difference: float
    max_difference: float
    """Difference of tokens' log-probabilities between the trained and the published policy, in nats, with rounding."""
    mean_change: float
    """Mean difference between the base model and the trained policy."""
    tolerance: float
    """Permitted mean difference, apart from rounding that was asked for."""
    num_answer_tokens: int
    """Tokens of the greedy answer that both gave."""
    margins: Margins | None
    """None for unpaired responses."""


@dataclass(frozen=True)
class _Readings:
    """Values that the published folder must give."""

    values: Values
    digests: dict[str, str]
    answer: list[int]


@dataclass(frozen=True)
class _Trained:
    """Values that the engine computes from base model, adapter or weights on the disk."""

    base: Values
    exact: Values
    """Under the unrounded weights."""
    published: _Readings
    """Under the weights as they are to be published."""


def verify(saved: SavedPolicy) -> PolicyVerification:
    """Check a saved policy; raises PolicyNotSavedWell, naming what differs, when it is not the trained one."""
    rows = longest_rows(saved.data)
    check_config(Path(saved.plan.base_model_dir), saved.directory)
    trained = _read_trained(saved, rows)
    tolerance = tolerance_of(trained.base, trained.exact)
    published = _check_plain(saved, rows, trained.published, tolerance)
    differences, moved = np.abs(published - trained.exact), np.abs(trained.exact - trained.base)
    return PolicyVerification(
        num_rows=len(rows),
        longest=int(row_lengths(saved.data)[rows].max()),
        num_weights_equal=len(trained.published.digests),
        mean_difference=float(differences.mean()),
        max_difference=float(differences.max()),
        mean_change=float(moved.mean()),
        tolerance=tolerance,
        num_answer_tokens=len(trained.published.answer),
        margins=_margins(saved.data, rows, trained, published),
    )


def tolerance_of(base: Values, trained: Values) -> float:
    """Mean difference per token, in nats, that is allowed between published and trained policy.

    The base model is beyond it wherever training has moved log-probabilities by more than `NOISE`.
    """
    moved = float(np.abs(trained - base).mean())
    return max(min(MEAN_TOLERANCE, LEARNT_SHARE * moved), NOISE)


def judge(differences: Values, tolerance: float) -> None:
    """Check that the tokens' differences, [S] in nats, are within the limits. Raises PolicyNotSavedWell."""
    mean, largest = float(differences.mean()), float(differences.max())
    if not (mean <= tolerance and largest <= MAX_TOLERANCE):  # NaN is no equality
        raise PolicyNotSavedWell(
            f"The saved policy gives other log-probabilities than the trained one, by up to {largest:.2g} nats a "
            f"token and {mean:.2g} on average, where {tolerance:.2g} is the limit. It is not published."
        )


def _read_trained(saved: SavedPolicy, rows: Sequence[int]) -> _Trained:
    model = load_untrained(saved.plan, saved.device)
    saved.adjust(model)
    base = _engine_values(model, saved.data, rows)
    if saved.plan.lora is None:
        del model
        try:
            model = load_causal_lm(saved.directory, dtype=torch.float32, device=saved.device)
        except UnsupportedModel as error:
            raise PolicyNotSavedWell(f"The saved policy does not load: {error.detail}") from error
        saved.adjust(model)
        exact = _engine_values(model, saved.data, rows)
        return _Trained(base, exact, _Readings(exact, saved.trained_digests, _engine_answer(model, saved)))
    load_trained_adapter(model, saved)
    exact = _engine_values(model, saved.data, rows)
    dtype = published_dtype(saved.plan)
    expected = weight_digests((weight.name, weight.rounded(dtype)) for weight in trained_weights(model))
    published = exact
    if dtype != torch.float32:
        round_merged(model, dtype)
        published = _engine_values(model, saved.data, rows)
    return _Trained(base, exact, _Readings(published, expected, _engine_answer(model, saved)))


def _check_plain(saved: SavedPolicy, rows: Sequence[int], expected: _Readings, tolerance: float) -> Values:
    """Return token log-probabilities of the folder after checking its contents. Raises PolicyNotSavedWell."""
    try:
        model = plain_scoring.load_plain(saved.directory, saved.device)
    except (OSError, ValueError, RuntimeError) as error:
        raise PolicyNotSavedWell(f"The saved policy does not load in transformers: {error}") from error
    _require_ends(model, saved.plan.eos_token_ids)
    require_equal_weights(plain_scoring.digests(model), expected.digests, "published")
    values = plain_scoring.token_logps(model, plain_scoring.sequences(saved.data, rows))
    judge(np.abs(values - expected.values), tolerance)
    num_tokens = _answer_tokens(model, saved)
    answer = plain_scoring.answer_greedily(model, saved.prompt, num_tokens) if num_tokens else []
    _require_same_answer(model, saved.prompt, answer, expected.answer)
    return values


def _require_ends(model: PreTrainedModel, eos_ids: Sequence[int]) -> None:
    if lost := sorted(set(eos_ids) - _named_ends(model)):
        raise PolicyNotSavedWell(
            f"The saved policy's generation_config.json does not end at token {lost[0]}, where turns were trained to "
            "end. It is not published."
        )


def _require_same_answer(model: PreTrainedModel, prompt: Sequence[int], found: list[int], expected: list[int]) -> None:
    if found == expected:
        return
    place = next(
        (n for n, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other),
        min(len(found), len(expected)),
    )
    if place < min(len(found), len(expected)):
        tokens = (found[place], expected[place])
        if plain_scoring.is_tie(model, [*prompt, *expected[:place]], tokens, TIE):
            return
    raise PolicyNotSavedWell(
        f"The saved policy answers otherwise than the trained one, from token {place + 1} on: {len(found)} tokens "
        f"instead of {len(expected)}. It is not published."
    )


def _engine_answer(model: PreTrainedModel, saved: SavedPolicy) -> list[int]:
    """Generate with the engine, ended where the published folder ends: base model's end tokens and training's."""
    num_tokens = _answer_tokens(model, saved)
    ends = {*saved.plan.eos_token_ids, *_named_ends(model)}
    return generate(model, saved.prompt, num_tokens, ends, keeps_end=True) if num_tokens else []


def _named_ends(model: PreTrainedModel) -> set[int]:
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    return {named} if isinstance(named, int) else set(named or ())


def _answer_tokens(model: PreTrainedModel, saved: SavedPolicy) -> int:
    """Number of tokens to generate, at most what the model has positions for."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    room = limit - len(saved.prompt) if isinstance(limit, int) and limit > 0 else _MAX_ANSWER_TOKENS
    return max(0, min(saved.plan.max_new_tokens, _MAX_ANSWER_TOKENS, room))


@torch.no_grad()
def _engine_values(model: PreTrainedModel, data: EncodedData, rows: Sequence[int]) -> Values:
    """Score all rows packed together, as training packs them."""
    if data.kind == "preference":
        batch = pack_pairs(data, rows, model.device)
    else:
        batch = pack_responses(data, rows, model.device, "chosen")
    values: Values = token_logps(model, batch).values.cpu().double().numpy()
    return values


def _margins(data: EncodedData, rows: Sequence[int], trained: _Trained, published: Values) -> Margins | None:
    if data.kind != "preference":
        return None
    counts = [len(sequence.predictors) for sequence in plain_scoring.sequences(data, rows)]
    num_chosen = sum(counts[: len(rows)])

    def mean(values: Values) -> float:
        return float(values[:num_chosen].sum() - values[num_chosen:].sum()) / len(rows)

    return Margins(base=mean(trained.base), trained=mean(trained.exact), published=mean(published))
