"""Pairs of a better and a worse answer, made from several answers judged by rank, score or votes."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Final, NamedTuple

from core.datasets.faults import Note, RowFault, quoted
from core.datasets.layouts.layout import Example, Reading
from core.datasets.layouts.pairs import read_pair
from core.datasets.messages.messages import type_name
from core.domain.dataset_rows import Text
from core.domain.issue_codes import IssueCode

MAX_ANSWERS: Final = 16


class RatedAnswer(NamedTuple):
    text: Text
    merit: float
    """The greater, the better."""


def pairs_by_merit(prompt: Text, answers: Sequence[RatedAnswer]) -> Reading:
    """Return every pair of answers that differ in merit; equal ones are ties, set aside."""
    if len(answers) > MAX_ANSWERS:
        raise RowFault(
            IssueCode.TOO_MANY_ANSWERS, f"The row has {len(answers)} answers to one prompt; {MAX_ANSWERS} are allowed."
        )
    if len(answers) < 2:
        note = Note(IssueCode.NOTHING_TO_COMPARE, "The prompt has no two judged answers to make a pair of.")
        return Reading([], [note])
    examples: list[Example] = []
    notes: list[Note] = []
    for first, second in combinations(answers, 2):
        reading = pair_by_preference(prompt, first.text, second.text, first.merit - second.merit)
        examples += reading.examples
        notes += reading.notes
    return Reading(examples, notes)


def pair_by_preference(prompt: Text, first: Text, second: Text, preference: float) -> Reading:
    """Order two answers by `preference`: above 0 the first is better, below 0 the second, 0 is a tie."""
    if preference == 0:
        return Reading(
            [], [Note(IssueCode.TIE, "Two answers to the prompt are judged equal, so there is no pair to learn from.")]
        )
    return read_pair(prompt, first, second) if preference > 0 else read_pair(prompt, second, first)


def read_number(value: object, pointer: str) -> float:
    """Read a rank, score or vote; numbers in texts are accepted, since CSV has only texts."""
    number = finite_number(value)
    if number is not None:
        return number
    shown = quoted(str(value)) if isinstance(value, str | float) else type_name(value)
    raise RowFault(IssueCode.INVALID_LABEL, f"{pointer} is {shown}; it must be a finite number.", pointer)


def finite_number(value: object) -> float | None:
    """Return the number, also of a text that holds one; None for anything else, infinities and NaN."""
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
    if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number):
        return number
    return None
