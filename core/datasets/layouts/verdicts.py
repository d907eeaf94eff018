"""Verdicts on two answers: the words and numbers that files use, and their meaning."""

import math
from collections.abc import Mapping
from typing import Final

from core.datasets.faults import RowFault, quoted
from core.datasets.messages.messages import type_name
from core.domain.issue_codes import IssueCode

FIRST: Final = 1
SECOND: Final = -1
TIE: Final = 0
_MAX_NAME_CHARS: Final = 16
NO_VERDICT: Final = ""
"""The key of a verdict that is null, empty or NaN."""

_SPELLINGS: Final[Mapping[int, tuple[str, ...]]] = {
    FIRST: ("a", "first", "left", "model_a", "response_1", "response_a", "output_1", "answer_1", "answer_a",
            "model_1", "a>b", "a>>b", "[[a]]", "[[a>b]]", "[[a>>b]]"),
    SECOND: ("b", "second", "right", "model_b", "response_2", "response_b", "output_2", "answer_2", "answer_b",
             "model_2", "b>a", "b>>a", "a<b", "a<<b", "[[b]]", "[[b>a]]", "[[b>>a]]"),
    TIE: ("tie", "tie (bothbad)", "both", "neither", "both_bad", "bothbad", "both bad", "both_good", "equal", "a=b",
          "[[c]]", "[[a=b]]", "draw", "same"),
}  # fmt: skip
WORDS: Final[Mapping[object, int]] = {
    spelling: verdict for verdict, spellings in _SPELLINGS.items() for spelling in spellings
}
_NUMBERS: Final[Mapping[object, int]] = {"1": FIRST, "2": SECOND, "0": TIE}
_BY_KEY: Final[Mapping[object, int]] = {**WORDS, **_NUMBERS}


def verdict_key(value: object) -> str | None:
    """Normalise a verdict: `1`, `1.0` and `"1.0"` become "1". None for what can be no verdict."""
    if value is None:
        return NO_VERDICT
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = value.strip().lower()
        number = _number(text)
        return text if number is None else _number_key(number)
    if isinstance(value, int | float):
        return _number_key(float(value))
    return None


def names_an_answer(value: object) -> bool:
    """Whether the value is a letter, number or word for one of two answers: A, 2, left, tie."""
    if isinstance(value, str) and len(value) > _MAX_NAME_CHARS:
        return False
    key = verdict_key(value)
    return key is not None and key in _BY_KEY


def is_whole(key: str) -> bool:
    return key.isdecimal()


def read_verdict(value: object, pointer: str) -> int:
    """Return 1 for the first answer, -1 for the second, 0 for a tie; numbers count from 1. Raises RowFault."""
    key = verdict_key(value)
    if key is not None:
        verdict = _BY_KEY.get(key)
        if verdict is None and 1 < (number := _number(key) or 0) < 2:
            # A graded verdict, as AlpacaEval writes it: the nearer end wins.
            verdict = int(number < 1.5) - int(number > 1.5)
        if verdict is not None:
            return verdict
    shown = quoted(str(value)) if isinstance(value, str | int | float) else type_name(value)
    raise RowFault(
        IssueCode.INVALID_LABEL,
        f"{pointer} is {shown}; it must be 1 or 2 (which answer is better), or 0 for a tie. What other words mean is "
        "said with `values`.",
        pointer,
    )


def _number(text: str) -> float | None:
    if not text or not (text[0].isdigit() or text[0] in "+-.n"):
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _number_key(number: float) -> str:
    if math.isnan(number):
        return NO_VERDICT
    return str(int(number)) if number.is_integer() else str(number)
