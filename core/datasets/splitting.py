"""The validation split: deterministic, grouped by prompt so that no prompt is on both sides."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson

from core.domain.dataset_rows import Text


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    num_train: int
    num_validation: int


def split_validation(rows: Path, fraction: float, seed: int, train: Path, validation: Path) -> SplitCounts:
    """Writes each line of `rows` to `train` or `validation`, in their order.

    Whole prompts go to validation, in an order drawn from `seed`, until it holds at least `fraction` of the rows.
    Validation stays empty for a fraction of 0; training keeps at least one prompt. Memory: one number per prompt.
    """
    groups = Counter(_group(line, seed) for line in _lines(rows))
    held_out = _choose(groups, fraction)
    num_validation = 0
    with train.open("wb") as train_file, validation.open("wb") as validation_file:
        for line in _lines(rows):
            is_held_out = _group(line, seed) in held_out
            num_validation += is_held_out
            (validation_file if is_held_out else train_file).write(line)
    return SplitCounts(num_train=groups.total() - num_validation, num_validation=num_validation)


def count_shared_prompts(rows: Path, others: Path) -> int:
    """Distinct prompts that both files of normalised rows have."""
    return len({_group(line, 0) for line in _lines(rows)} & {_group(line, 0) for line in _lines(others)})


def find_shared_prompts(rows: Path, others: Path, max_lines: int = 1_000) -> list[int]:
    """The lines (of the file as uploaded) of the first rows of `rows` whose prompt `others` has too."""
    known = {_group(line, 0) for line in _lines(others)}
    shared = (orjson.loads(line)["line"] for line in _lines(rows) if _group(line, 0) in known)
    return list(islice(shared, max_lines))


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
    """A digest of the row's prompt; letter case, white space and Unicode form make no other prompt.

    Rows without a prompt have nothing in common: each is a group by its response.
    """
    row = orjson.loads(line)
    normalised = _level(row["prompt"]) or _level(row.get("chosen", row.get("response", "")))
    return hashlib.blake2b(f"{seed}\x02{normalised}".encode(), digest_size=16).digest()


def _level(text: Text) -> str:
    turns = [text] if isinstance(text, str) else [f"{turn['role']}\x00{turn['content']}" for turn in text]
    return "\x01".join(" ".join(unicodedata.normalize("NFKC", turn).casefold().split()) for turn in turns)
