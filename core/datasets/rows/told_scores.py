"""Comparison of scores that a file gives for chosen and rejected responses with the order of the pair."""

from typing import Final, Literal

from core.datasets.advice.advice import Advice
from core.datasets.faults import Note, RowFault
from core.datasets.layouts.answers import finite_number
from core.datasets.layouts.columns import RANK_PAIRS, SCORE_PAIRS
from core.datasets.layouts.layout import Reading, SourceRow
from core.domain.issue_codes import IssueCode

SCORE_NAMES: Final = frozenset((*(name for pair in (*SCORE_PAIRS, *RANK_PAIRS) for name in pair), "status"))


def compare_scores(row: SourceRow, reading: Reading, ties: Literal["keep", "drop"]) -> Reading:
    """Check the pair against its scores; equal ones are remarked on, or set aside where `ties` are to be dropped.

    Raises:
        RowFault: the rejected response has the better score.
    """
    is_tie = str(row.get("status", "")).strip().lower() == "tie"
    for names in (*SCORE_PAIRS, *RANK_PAIRS):
        if names[0] not in row or names[1] not in row:
            continue
        chosen, rejected = (finite_number(row[name]) for name in names)
        if chosen is None or rejected is None:
            continue
        if chosen > rejected if names in RANK_PAIRS else chosen < rejected:
            raise RowFault(
                IssueCode.SCORES_DISAGREE,
                f"'{names[1]}' is {rejected:g} and '{names[0]}' {chosen:g}: by its own scores the pair is reversed.",
                f"/{names[1]}",
                advice=[Advice({"ignore": list(names)}, "If the scores are not to count")],
            )
        is_tie |= chosen == rejected
    if not is_tie:
        return reading
    if ties == "drop":
        return Reading([], [Note(IssueCode.TIE, "The file's own scores of the two responses are equal.")])
    detail = "The file's own scores of the two responses are equal; the pair is kept, unless you send ties=drop."
    return Reading(reading.examples, [*reading.notes, Note(IssueCode.SCORE_TIE, detail)])
