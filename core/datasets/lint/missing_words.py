"""Verdict over prompts and responses that are a word for a missing value, as pandas and SQL write one."""

from collections.abc import Mapping

from core.datasets.faults import FileFault, Note, quoted
from core.datasets.rows.tally import MissingWords
from core.domain.issue_codes import IssueCode


def judge_missing(found: Mapping[str, MissingWords], num_accepted: int) -> list[tuple[Note, int | None]]:
    """Return a warning for each field, with the line where it is first seen.

    Raises:
        FileFault: in all rows of the file one field is such a word.
    """
    notes: list[tuple[Note, int | None]] = []
    for name, words in found.items():
        what = f"{quoted(words.word)}, or another word that programs write for a missing value"
        if words.num_rows == num_accepted:
            rows = "the only row" if num_accepted == 1 else f"all {num_accepted:,} rows"
            raise FileFault(
                IssueCode.NO_USABLE_ROW,
                f"No usable row is left: the whole {name} is {what}, in {rows}. Look at the export.",
                line=words.line,
            )
        detail = (
            f"The whole {name} is {what}, in {words.num_rows:,} of {num_accepted:,} rows; they are kept as texts. If "
            "nothing was there, leave the rows out, or write the cells empty."
        )
        notes.append((Note(IssueCode.MISSING_VALUE_AS_TEXT, detail, f"/{name}"), words.line))
    return notes
