"""Draws of a dataset's rows: rows of different prompts, each prompt as likely as any other."""

import random
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import orjson

from core.domain.dataset_rows import CONTEXT_FIELDS

MAX_ROWS_READ = 200_000
"""Rows of a dataset from which any are drawn."""


def draw_rows(rows: Iterable[dict[str, Any]], number: int, seed: int, *, needs_prompt: bool) -> list[dict[str, Any]]:
    """Draw at most `number` rows, the first of each prompt, in the order of the file."""
    rng, kept, seen = random.Random(seed), dict[int, dict[str, Any]](), set[bytes]()
    for row in rows:
        if needs_prompt and not row["prompt"]:
            continue
        digest = blake2b(orjson.dumps(row["prompt"]), digest_size=16).digest()
        if digest in seen:
            continue
        seen.add(digest)
        place = len(seen) - 1 if len(seen) <= number else rng.randrange(len(seen))
        if place < number:
            kept[place] = row
    return sorted(kept.values(), key=lambda row: int(row["line"]))


def prompt_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the prompt of a row with its line, and with what a template writes into it."""
    return {"prompt": row["prompt"], "line": row["line"]} | {name: row[name] for name in CONTEXT_FIELDS if name in row}


def distinct(prompts: Iterable[Any]) -> list[Any]:
    """Return the prompts, each once."""
    return list({orjson.dumps(prompt): prompt for prompt in prompts}.values())
