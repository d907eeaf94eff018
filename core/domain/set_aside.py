"""Reasons why a row of a dataset is not trained on with one base model."""

from collections.abc import Mapping
from enum import StrEnum


class SetAsideReason(StrEnum):
    NOT_ENCODABLE = "not_encodable"
    """The base model's chat template refuses it, or would leave out what it holds."""
    TOO_LONG = "too_long"
    """More tokens than `max_length`."""
    EQUAL_ONCE_RENDERED = "equal_once_rendered"
    """Chosen and rejected are the same tokens, so there is nothing to prefer."""


_WORDS: Mapping[SetAsideReason, str] = {
    SetAsideReason.NOT_ENCODABLE: "that this base model cannot take",
    SetAsideReason.TOO_LONG: "too long",
    SetAsideReason.EQUAL_ONCE_RENDERED: "equal once rendered",
}


def describe(counts: Mapping[str, int]) -> str:
    """Describe counts by reason in words: `3 too long, 1 equal once rendered`."""
    return ", ".join(f"{counts[reason]:,} {words}" for reason, words in _WORDS.items() if counts.get(reason))
