"""Validation split: deterministic, grouped by prompt so that no prompt is on both sides."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from core.domain.dataset_rows import Message, Text

MAX_SHARED_LINES = 100
"""Lines that are told one by one; all are counted."""


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    num_train: int
    num_validation: int
    num_validation_prompts: int
    validation_lines: list[int]
    """Lines of the file as uploaded: the first `MAX_SHARED_LINES`."""


@dataclass(frozen=True, kw_only=True)
class SharedPrompts:
    num_prompts: int
    """Distinct."""
    num_rows: int
    """Rows of the first file with one of them."""
    lines: list[int]
    """Lines of that file as uploaded: the first `MAX_SHARED_LINES`."""


def split_validation(rows: Path, fraction: float, seed: int, train: Path, validation: Path) -> SplitCounts:
    """Write each line of `rows` to `train` or `validation`, in their order.

    Whole prompts go to validation, in an order drawn from `seed`, until it holds at least `fraction` of the rows.
    Validation stays empty for a fraction of 0; training keeps at least one prompt. Memory: one number per prompt.
    """
    groups = Counter(_group(line, seed) for line in _lines(rows))
    held_out = _choose(groups, fraction)
    num_validation = 0
    lines: list[int] = []
    with train.open("wb") as train_file, validation.open("wb") as validation_file:
        for line in _lines(rows):
            is_held_out = _group(line, seed) in held_out
            num_validation += is_held_out
            (validation_file if is_held_out else train_file).write(line)
            if is_held_out and len(lines) < MAX_SHARED_LINES:
                lines.append(orjson.loads(line)["line"])
    return SplitCounts(
        num_train=groups.total() - num_validation,
        num_validation=num_validation,
        num_validation_prompts=len(held_out),
        validation_lines=lines,
    )


def find_shared_prompts(rows: Path, others: Path) -> SharedPrompts:
    """Find prompts that both files have; letter case, white space and Unicode form make no difference."""
    known = {_group(line, 0) for line in _lines(others)}
    found: set[bytes] = set()
    lines: list[int] = []
    num_rows = 0
    for line in _lines(rows):
        group = _group(line, 0)
        if group not in known:
            continue
        found.add(group)
        num_rows += 1
        if len(lines) < MAX_SHARED_LINES:
            lines.append(orjson.loads(line)["line"])
    return SharedPrompts(num_prompts=len(found), num_rows=num_rows, lines=lines)


def _choose(groups: Counter[bytes], fraction: float) -> set[bytes]:
    wanted = fraction * groups.total()
    chosen: set[bytes] = set()
    taken = 0
    for group in sorted(groups)[:-1]:
        if taken >= wanted:
            break
        chosen.add(group)
        taken += groups[group]
    return chosen


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _group(line: bytes, seed: int) -> bytes:
    """Return a digest of the row's prompt; letter case, white space and Unicode form make no difference.

    Rows without a prompt have nothing in common: each is a group by its response.
    """
    row = orjson.loads(line)
    normalised = _level(row["prompt"]) or _level(row.get("chosen", row.get("response", "")))
    return hashlib.blake2b(f"{seed}\x02{normalised}".encode(), digest_size=16).digest()


def _level(text: Text) -> str:
    if isinstance(text, str):
        return _level_words(text)
    return "\x01".join(map(_level_turn, text))


def _level_turn(turn: Message) -> str:
    calls = orjson.dumps(turn["tool_calls"]).decode() if "tool_calls" in turn else ""
    return f"{turn['role']}\x00{_level_words(turn['content'])}{calls}"


def _level_words(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
