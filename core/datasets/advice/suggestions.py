"""Mappings that a file's columns suggest, by their names and contents; each is tried before it is named."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Final

from core.datasets.advice.advice import Advice
from core.datasets.faults import quoted
from core.datasets.layouts.columns import NEGATIVE, POSITIVE
from core.datasets.layouts.layout import SourceRow
from core.datasets.layouts.verdicts import names_an_answer
from core.domain.dataset_rows import DatasetKind

MAX_ADVICE: Final = 3
_PARTS_THAT_DIFFER: Final = (("1", "2"), ("0", "1"), ("a", "b"), ("A", "B"), ("left", "right"), ("first", "second"))
_PROMPT_NAME: Final = re.compile(
    r"prompt|question|instruction|query|\bq\b|ask|problem|request|brief|task", re.IGNORECASE
)
_MIN_TEXT_CHARS: Final = 2
_MAX_NAME_CHARS: Final = 64
_MAX_COLUMNS: Final = 64
"""Columns that are looked at."""


def suggest(rows: Sequence[SourceRow], kind: DatasetKind) -> list[Advice]:
    """Return mappings for a file of no layout known, the likelier first; none where a name could be two things."""
    if kind is not DatasetKind.PREFERENCE:
        return []
    texts = text_columns(rows)
    return [*_pairs(texts), *_judged(rows, texts)][:MAX_ADVICE]


def text_columns(rows: Sequence[SourceRow]) -> list[str]:
    """Return the columns that hold texts or lists in most rows."""
    names = list({name: None for row in rows for name in row})[:_MAX_COLUMNS]
    return [name for name in names if 2 * sum(_is_said(row.get(name)) for row in rows) >= len(rows)]


def counterparts(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ in a number or letter alone: `answer_a` and `answer_b`."""
    return _counterparts(tuple(name for name in names[:_MAX_COLUMNS] if len(name) <= _MAX_NAME_CHARS))


@lru_cache(256)
def _counterparts(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [pair for pair in combinations(names, 2) if _are_counterparts(*pair)]


def judged_mapping(names: Sequence[str], verdict: str) -> Mapping[str, str] | None:
    """Return the mapping of a prompt and two answers that `verdict` decides between; None where it is in doubt."""
    pairs = counterparts([name for name in names if name != verdict])
    if len(pairs) != 1:
        return None
    first, second = pairs[0]
    prompt = _prompt_among([name for name in names if name not in (first, second, verdict)])
    if prompt is None:
        return None
    return {"prompt": prompt, "response_1": first, "response_2": second, "preference": verdict}


def _pairs(texts: list[str]) -> Iterator[Advice]:
    good = [name for name in texts if POSITIVE.search(name) and not NEGATIVE.search(name)]
    bad = [name for name in texts if NEGATIVE.search(name)]
    prompt = _prompt_among([name for name in texts if name not in (*good, *bad)])
    if len(bad) == 1 and not good:
        good = [name for name in texts if name == NEGATIVE.sub("", bad[0]).strip("_- ed")]
        prompt = _prompt_among([name for name in texts if name not in (*good, *bad)])
    if len(good) == len(bad) == 1 and prompt is not None:
        columns = {"prompt": prompt, "chosen": good[0], "rejected": bad[0]}
        when = f"If {quoted(good[0])} is the better answer to {quoted(prompt)} and {quoted(bad[0])} the worse"
        yield Advice({"columns": columns}, when)


def _judged(rows: Sequence[SourceRow], texts: list[str]) -> Iterator[Advice]:
    names = list({name: None for row in rows for name in row})[:_MAX_COLUMNS]
    for name in names:
        values = [row[name] for row in rows if row.get(name) not in (None, "")]
        if not values or not all(map(names_an_answer, values)):
            continue
        columns = judged_mapping([*texts, name], name)
        if columns is not None:
            first, second = quoted(columns["response_1"]), quoted(columns["response_2"])
            when = f"If {quoted(name)} says which of {first} and {second} is better"
            yield Advice({"columns": columns}, when)


def _prompt_among(names: Sequence[str]) -> str | None:
    if len(names) == 1:
        return names[0]
    telling = [name for name in names if _PROMPT_NAME.search(name)]
    return telling[0] if len(telling) == 1 else None


def _is_said(value: object) -> bool:
    if isinstance(value, str):
        return len(value.strip()) >= _MIN_TEXT_CHARS and not names_an_answer(value)
    return isinstance(value, list | dict) and bool(value)


def _are_counterparts(first: str, second: str) -> bool:
    for one, other in _PARTS_THAT_DIFFER:
        place = first.rfind(one)
        while place >= 0:
            if first[:place] + other + first[place + len(one) :] == second:
                return True
            place = first.rfind(one, 0, place)
    return False
