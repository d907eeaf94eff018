"""Verdict over all columns of a file: whether meaningful ones are used, and whether the verdicts are unambiguous."""

from collections import Counter
from typing import Final

from core.datasets.faults import FileFault, Note, quoted
from core.datasets.layouts.columns import Role, meaning_in_message, meaning_of
from core.datasets.layouts.layout import Layout
from core.datasets.layouts.verdicts import NO_VERDICT, TIE, WORDS, is_whole
from core.datasets.options import CheckOptions
from core.datasets.rows.account import Account, UnusedColumn
from core.datasets.rows.renaming import IN_MESSAGES
from core.domain.dataset_rows import DatasetKind
from core.domain.issue_codes import IssueCode

_VERDICT_NUMBERS: Final = frozenset("012")
_LABEL_KEYS: Final = frozenset(("true", "false", "0", "1", "yes", "no", "good", "bad"))


def judge_columns(account: Account, layout: Layout, options: CheckOptions) -> list[tuple[Note, int | None]]:
    """Return warnings, each with the line where it is first seen.

    Raises:
        FileFault: the verdicts can be read in two ways, or a column that decides who wins, or what is asked, is unused.
    """
    if layout.open_verdicts and not options.values:
        _require_clear(account.verdicts, layout)
    notes: list[tuple[Note, int | None]] = _one_verdict(account.verdicts)
    for name, column in sorted(account.unused.items()):
        if IN_MESSAGES not in name and _decides(name, column, layout):
            raise FileFault(IssueCode.FIELD_TO_DECIDE, _decision(name, column, layout), line=column.line)
        notes.append((Note(IssueCode.MEANINGFUL_FIELD_IGNORED, _remark(name, column), None), column.line))
    return notes


def _require_clear(verdicts: Counter[str], layout: Layout) -> None:
    numbers = {key for key in verdicts if is_whole(key)}
    if not numbers or (numbers >= {"1", "2"} and "0" not in numbers):
        return
    if any("." in key for key in verdicts):  # graded, from 1 to 2
        return
    name = layout.open_verdicts[0]
    shown = ", ".join(sorted(numbers))
    raise FileFault(
        IssueCode.VERDICT_UNCLEAR,
        f"The numbers in {quoted(name)} are {shown}, which may count from 0 or from 1. Say what they mean: send "
        f"values={_values(numbers, ('first', 'second', 'tie'))} if the first answer is 0, or "
        f"values={_values(numbers, ('tie', 'first', 'second'))} if it is 1.",
    )


def _values(numbers: set[str], words: tuple[str, str, str]) -> str:
    shown = ", ".join(f'"{key}": "{words[int(key)]}"' for key in sorted(numbers) if key in _VERDICT_NUMBERS)
    return f"{{{shown}}}"


def _one_verdict(verdicts: Counter[str]) -> list[tuple[Note, int | None]]:
    known = {key: count for key, count in verdicts.items() if key in WORDS or is_whole(key)}
    told = {key: count for key, count in known.items() if WORDS.get(key) != TIE}
    num_empty = verdicts[NO_VERDICT]
    if len(told) != 1 or verdicts.total() < 2 or sum(known.values()) + num_empty < verdicts.total():
        return []
    ((key, count),) = told.items()
    detail = f"All {count:,} verdicts are {quoted(key)}: the same answer is better in every row."
    return [(Note(IssueCode.ONE_VERDICT_ONLY, detail), None)]


def _decides(name: str, column: UnusedColumn, layout: Layout) -> bool:
    """Whether the column would change which response wins, or what is asked."""
    role, roles = meaning_of(name), layout.roles.values()
    keys = column.values.keys() - {NO_VERDICT}
    if role is Role.VERDICT and layout.kind is DatasetKind.PREFERENCE:
        return len(keys) > 1 and all(key in WORDS or key in _VERDICT_NUMBERS for key in keys)
    if role in (Role.LABEL, Role.VERDICT) and layout.kind is DatasetKind.DEMONSTRATION:
        return len(keys) > 1 and keys <= _LABEL_KEYS
    if role is Role.RESPONSE and layout.kind is DatasetKind.DEMONSTRATION:
        return "reject" in name.lower()
    return role is Role.HISTORY or (role is Role.PROMPT and column.has_lists and Role.PROMPT in roles)


def _decision(name: str, column: UnusedColumn, layout: Layout) -> str:
    role = meaning_of(name)
    why = {
        Role.PROMPT: "holds turns, which may be what is asked",
        Role.HISTORY: "holds earlier turns",
        Role.RESPONSE: "holds a rejected response",
    }.get(role or Role.PROVENANCE, "seems to say which response is the good one")
    return (
        f"{_rows(column)} {quoted(name)} (the first is {column.example}), which {why}, and is not used: "
        f"the file is read as {quoted(layout.name)}. Name what the columns are with `columns`, or, if it is not to "
        f'count, send ignore=["{name}"].'
    )


def _remark(name: str, column: UnusedColumn) -> str:
    of_messages, _, key = name.partition(IN_MESSAGES)
    role = meaning_in_message(key) if key else meaning_of(name)
    what = f"a {role}" if role else f"another text than the content of '{of_messages}'"
    way_out = "Send" if key else "Map it with `columns`, or send"
    return (
        f"{quoted(name)} seems to be {what} and is not used; {_rows(column)} it, the first {column.example}. "
        f'{way_out} ignore=["{name}"] if it is not to count.'
    )


def _rows(column: UnusedColumn) -> str:
    return "1 row has" if column.num_rows == 1 else f"{column.num_rows:,} rows have"
