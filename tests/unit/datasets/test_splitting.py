"""The validation split: the same every time, whole prompts, and no leak that goes unnoticed."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.datasets.splitting import MAX_SHARED_LINES, find_shared_prompts, split_validation

from .conftest import jsonl, read_jsonl


def normalised(num_prompts: int, per_prompt: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "line": number + 1,
            "prompt": [{"role": "user", "content": f"Question {number % num_prompts}?"}],
            "chosen": [{"role": "assistant", "content": f"good {number}"}],
            "rejected": [{"role": "assistant", "content": f"bad {number}"}],
        }
        for number in range(num_prompts * per_prompt)
    ]


def split(folder: Path, rows: list[Any], fraction: float = 0.1, seed: int = 0) -> tuple[list[Any], list[Any]]:
    source, train, validation = folder / "rows", folder / "train", folder / "validation"
    source.write_bytes(jsonl(rows))
    counts = split_validation(source, fraction, seed, train, validation)
    halves = read_jsonl(train), read_jsonl(validation)
    assert (counts.num_train, counts.num_validation) == tuple(map(len, halves))
    assert counts.validation_lines == [row["line"] for row in halves[1]][:MAX_SHARED_LINES]
    return halves


def prompts(rows: list[Any]) -> set[str]:
    return {json.dumps(row["prompt"]).casefold() for row in rows}


def test_no_prompt_is_on_both_sides_and_no_row_is_lost(tmp_path: Path) -> None:
    rows = normalised(100)
    train, validation = split(tmp_path, rows)
    assert sorted(train + validation, key=lambda row: row["line"]) == rows
    assert not prompts(train) & prompts(validation)
    assert 30 <= len(validation) <= 33
    assert [row["line"] for row in train] == sorted(row["line"] for row in train)


def test_the_split_is_drawn_from_the_seed_alone(tmp_path: Path) -> None:
    rows = normalised(100)
    first = split(tmp_path, rows)
    assert split(tmp_path, rows) == first
    assert split(tmp_path, rows, seed=1)[1] != first[1]
    shuffled = split(tmp_path, rows[::-1])[1]
    assert sorted(row["line"] for row in shuffled) == [row["line"] for row in first[1]]


@pytest.mark.parametrize("variation", ["QUESTION 7?", "  question   7? ", "Question\n7?", "Ｑuestion 7?"])
def test_the_same_prompt_in_other_clothes_is_the_same(tmp_path: Path, variation: str) -> None:
    rows = normalised(30, 1)
    for number in range(20):
        rows.append({**rows[0], "line": 31 + number, "prompt": [{"role": "user", "content": variation}]})
    for seed in range(8):
        _, validation = split(tmp_path, rows, 0.3, seed)
        lines = {row["line"] for row in validation}
        assert lines.isdisjoint({8, *range(31, 51)}) or lines >= {8, *range(31, 51)}


def test_small_and_one_sided_files(tmp_path: Path) -> None:
    single = normalised(1, 1)
    assert split(tmp_path, single) == (single, [])
    repeated = normalised(1, 50)
    assert split(tmp_path, repeated) == (repeated, [])  # a duplicate prompt is never on both sides
    assert split(tmp_path, normalised(10), fraction=0.0)[1] == []
    train, validation = split(tmp_path, normalised(10), fraction=0.99)
    assert len(prompts(train)) == 1
    assert len(prompts(validation)) == 9


def test_rows_without_a_prompt_are_told_apart_by_their_response(tmp_path: Path) -> None:
    rows = [{"line": n, "prompt": "", "response": f"text {n}"} for n in range(1, 101)]
    train, validation = split(tmp_path, rows)
    assert (len(train), len(validation)) == (90, 10)


def test_a_leaked_prompt_is_found_exactly(tmp_path: Path) -> None:
    train, validation = normalised(200, 1), normalised(260, 1)[200:]
    leaked = [{**validation[5], "line": 777}, {**validation[9], "line": 778}, {**validation[9], "line": 779}]
    leaked[0]["prompt"] = [{"role": "user", "content": validation[5]["prompt"][0]["content"].upper() + " "}]
    for name, rows in (("train", train + leaked), ("clean", train), ("validation", validation)):
        (tmp_path / name).write_bytes(jsonl(rows))
    shared = find_shared_prompts(tmp_path / "train", tmp_path / "validation")
    assert (shared.num_prompts, shared.num_rows, shared.lines) == (2, 3, [777, 778, 779])
    clean = find_shared_prompts(tmp_path / "clean", tmp_path / "validation")
    assert (clean.num_prompts, clean.num_rows, clean.lines) == (0, 0, [])
