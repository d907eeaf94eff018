"""Verdict over all columns of a file: whether meaningful ones are used, and whether the verdicts are unambiguous."""

import json
from collections import Counter
from typing import Final

from core.datasets.advice.advice import Advice
from core.datasets.advice.suggestions import counterparts, judged_mapping
from core.datasets.faults import FileFault, Note, listed, quoted
from core.datasets.layouts.columns import NEGATIVE, Role, meaning_in_message, meaning_of
from core.datasets.layouts.layout import Layout
from core.datasets.layouts.singles import LABEL_WORDS
from core.datasets.layouts.verdicts import NO_VERDICT, TIE, WORDS, is_whole
from core.datasets.options import CheckOptions
from core.datasets.rows.account import OTHERS, Account, NamedSides, UnusedColumn
from core.datasets.rows.renaming import IN_MESSAGES
from core.domain.dataset_rows import DatasetKind
from core.domain.issue_codes import IssueCode

_VERDICT_NUMBERS: Final = frozenset("012")
_LETTERS_ARE_MEANT: Final = "If the model is to answer with such a name alone"
_PHRASES: Final = {Role.SYSTEM: "a system prompt", Role.TOOLS: "tool definitions", Role.HISTORY: "earlier turns"}
_MAX_EXAMPLE_VALUES: Final = 8
_LABEL_KEYS: Final = frozenset(LABEL_WORDS) | {"-1"}


def judge_columns(account: Account, layout: Layout, options: CheckOptions) -> list[tuple[Note, int | None]]:
    """Return warnings, each with the line where it is first seen.

    Raises:
        FileFault: the verdicts can be read in two ways, or a column that decides who wins, or what is asked, is unused.
    """
    if account.named_sides is not None:
        raise _named_sides(account, account.named_sides, options)
    if layout.open_verdicts and not options.values:
        _require_clear(account.verdicts, layout)
    deciding = [
        name for name, column in account.unused.items() if IN_MESSAGES not in name and _decides(name, column, layout)
    ]
    if deciding:
        raise _undecided(sorted(deciding), account, layout, options)
    notes: list[tuple[Note, int | None]] = _one_verdict(account.verdicts)
    for name, column in sorted(account.unused.items()):
        detail = _remark(name, column, layout, options)
        notes.append((Note(IssueCode.MEANINGFUL_FIELD_IGNORED, detail), column.line))
    return notes


def _named_sides(account: Account, first: NamedSides, options: CheckOptions) -> FileFault:
    columns = judged_mapping(first.others, options.columns.get(first.side, first.side))
    return FileFault(
        IssueCode.VERDICT_AS_RESPONSE,
        f"In {account.num_named_sides:,} of the rows the responses are names of answers, such as A and B, and the "
        f"answers stand in other columns ({listed(first.others)}).",
        line=first.line,
        advice=[
            *([Advice({"columns": columns}, f"If {quoted(first.side)} names the better answer")] if columns else []),
            Advice({"ignore": [name for pair in counterparts(first.others) for name in pair]}, _LETTERS_ARE_MEANT),
        ],
    )


def _require_clear(verdicts: Counter[str], layout: Layout) -> None:
    numbers = {key for key in verdicts if is_whole(key)}
    if not numbers or (numbers == {"1", "2"}):
        return
    if any("." in key for key in verdicts):  # graded, from 1 to 2
        return
    name, shown = quoted(layout.open_verdicts[0]), ", ".join(sorted(numbers))
    if numbers <= _VERDICT_NUMBERS:
        raise FileFault(
            IssueCode.VERDICT_UNCLEAR,
            f"The numbers in {name} are {shown}, which may count from 0 or from 1; say what they mean.",
            advice=[
                Advice({"values": _values(numbers, ("first", "second", "tie"))}, "If the first answer is 0"),
                Advice({"values": _values(numbers, ("tie", "first", "second"))}, "If the first answer is 1"),
            ],
        )
    raise FileFault(
        IssueCode.VERDICT_UNCLEAR,
        f"The numbers in {name} are {shown}, and only 1 and 2 are understood; say which of them mean the first answer, "
        "the second, or a tie.",
        advice=example_values(verdicts),
    )


def example_values(verdicts: Counter[str]) -> list[Advice]:
    """Return the form of `values` for verdicts whose meaning is for the user to say."""
    keys = sorted(key for key in verdicts if key != NO_VERDICT)
    if not 1 < len(keys) <= _MAX_EXAMPLE_VALUES or OTHERS in keys:
        return []
    words = ["first", *["tie"] * (len(keys) - 2), "second"]
    return [Advice({"values": dict(zip(keys, words, strict=True))}, "With what each of them means", is_example=True)]


def _values(numbers: set[str], words: tuple[str, str, str]) -> dict[str, str]:
    return {key: words[int(key)] for key in sorted(numbers)}


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
    role, roles = _role_of(name, column), layout.roles.values()
    keys = column.values.keys() - {NO_VERDICT}
    if role is Role.VERDICT and layout.kind is DatasetKind.PREFERENCE:
        return len(keys) > 1 and all(key in WORDS or key in _VERDICT_NUMBERS for key in keys)
    if role in (Role.LABEL, Role.VERDICT) and layout.kind is DatasetKind.DEMONSTRATION:
        return len(keys) > 1 and keys <= _LABEL_KEYS
    if role is Role.RESPONSE and layout.kind is DatasetKind.DEMONSTRATION:
        return NEGATIVE.search(name) is not None
    return role is Role.HISTORY or (role is Role.PROMPT and column.has_lists and Role.PROMPT in roles)


def _undecided(names: list[str], account: Account, layout: Layout, options: CheckOptions) -> FileFault:
    name, column = names[0], account.unused[names[0]]
    why = {
        Role.PROMPT: "holds turns, which may be what is asked",
        Role.HISTORY: "holds earlier turns",
        Role.RESPONSE: "holds a rejected response",
    }.get(_role_of(name, column) or Role.PROVENANCE, "seems to say which response is the good one")
    more = f" So do {listed(names[1:])}." if names[1:] else ""
    return FileFault(
        IssueCode.FIELD_TO_DECIDE,
        f"{_rows(column)} {quoted(name)} (the first is {column.example}), which {why}, and is not used: "
        f"the file is read as {quoted(layout.name)}.{more} Name what the columns are with `columns`.",
        line=column.line,
        advice=[*_uses_of(name, layout, options), Advice({"ignore": names}, f"If {listed(names)} is not to count")],
    )


def _role_of(name: str, column: UnusedColumn) -> Role | None:
    return Role.VERDICT if column.is_verdict else meaning_of(name)


def _uses_of(name: str, layout: Layout, options: CheckOptions) -> list[Advice]:
    """Return ways of naming the column for what it may be."""
    role = meaning_of(name)
    if role in (Role.HISTORY, Role.PROMPT):
        return [Advice({"columns": {**options.columns, "history": name}}, f"If {quoted(name)} holds earlier turns")]
    if role is Role.RESPONSE:
        when = f"If {quoted(name)} is the rejected response"
        sides = [ours for ours, known in layout.columns.items() if known is Role.RESPONSE]
        ways = [_mapping(layout, options, chosen=_theirs(side, options), rejected=name) for side in sides]
        ways += [{**options.columns, "rejected_response": name}]
        return [Advice({"kind": "preference", "columns": way}, when) for way in ways]
    if layout.kind is DatasetKind.DEMONSTRATION:
        when = f"If {quoted(name)} says whether the response is good"
        return [Advice({"kind": "unpaired", "columns": {**options.columns, "label": name}}, when)]
    if {"chosen", "rejected"} <= layout.columns.keys():
        first, second = _theirs("chosen", options), _theirs("rejected", options)
        columns = _mapping(layout, options, response_1=first, response_2=second, preference=name)
        return [Advice({"columns": columns}, f"If {quoted(name)} says whether {quoted(first)} or {quoted(second)} won")]
    return []


def _mapping(layout: Layout, options: CheckOptions, **columns: str) -> dict[str, str]:
    prompt = next((ours for ours, role in layout.columns.items() if role is Role.PROMPT), "prompt")
    return {"prompt": _theirs(prompt, options), **columns}


def _theirs(ours: str, options: CheckOptions) -> str:
    """Return the file's own name of the column that is called `ours` once mapped."""
    return options.columns.get(ours, ours)


def _remark(name: str, column: UnusedColumn, layout: Layout, options: CheckOptions) -> str:
    of_messages, _, key = name.rpartition(IN_MESSAGES)
    role = meaning_in_message(key) if of_messages else meaning_of(name)
    what = _PHRASES.get(role, f"a {role}") if role else f"another text than the content of '{of_messages}'"
    way_out = ""
    if not of_messages and role is Role.PROMPT and layout.name == "explicit" and not options.columns:
        columns = json.dumps({"instruction": "prompt", "input": name})
        way_out = f"Send columns={columns} to put it after the prompt. "
    elif not of_messages and role in (Role.SYSTEM, Role.HISTORY, Role.TOOLS) and role.value not in layout.columns:
        columns = json.dumps({**options.columns, role.value: name})
        way_out = f"Send columns={columns} to use it. "
    return (
        f"{quoted(name)} seems to be {what} and is not used; {_rows(column)} it, the first {column.example}. "
        f'{way_out}Send ignore=["{name}"] if it is not to count.'
    )


def _rows(column: UnusedColumn) -> str:
    return "1 row has" if column.num_rows == 1 else f"{column.num_rows:,} rows have"
