"""Lines as long as a dataset may have them, written so that a search begins at every character of theirs."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from core.datasets.cells.notations import NotationError, parse_notation
from core.datasets.sources.parquet_columns import _NUMBER
from core.tokenization.control_tokens import _DELIMITER

from .conftest import Check

MAX_SECONDS = 10.0
"""Linear readings take a tenth of it; those that begin anew at every character take minutes to hours."""


def timed(work: Callable[[], Any]) -> Any:
    began = time.process_time()
    result = work()
    assert time.process_time() - began < MAX_SECONDS
    return result


@pytest.mark.parametrize("end", ["### Response", " ### Response:", " ### Response):"])
def test_many_beginnings_of_an_open_turn(check: Check, end: str) -> None:
    prompt = "### Instruction: say. " + " Response (" * 94_000 + end
    checked = timed(lambda: check([{"prompt": prompt, "chosen": "Yes.", "rejected": "No."}]))
    assert checked.rows[0]["prompt"] == prompt
    assert ("rendered-text" in checked.codes) == end.endswith(":")


@pytest.mark.parametrize("name", ["### Response:", "ASSISTANT: \n", "### Response (in two words):", "Assistant:"])
def test_an_open_turn_behind_a_long_prompt_is_seen(check: Check, name: str) -> None:
    checked = check([{"prompt": f"USER: {'a word ' * 100} {name}", "chosen": "Yes.", "rejected": "No."}])
    assert checked.codes == {"rendered-text": 1}


def test_a_name_within_a_word_is_no_open_turn_wherever_the_look_begins(check: Check) -> None:
    prompts = [f"USER: {'a' * number}Assistant:" for number in range(185, 200)]
    checked = check([{"prompt": prompt, "chosen": "Yes.", "rejected": "No."} for prompt in prompts])
    assert "rendered-text" not in checked.codes


def test_digits_that_make_no_number() -> None:
    with pytest.raises(NotationError):
        timed(lambda: parse_notation("[(" + "1" * 4_000_000 + "x)]", 10))
    with pytest.raises(NotationError, match="more than 4,300"):
        parse_notation("[" + "1" * 5000 + "]", 10)
    assert parse_notation("[1, 1., 1.5, .5, -2e3, +7]", 10) == [1, 1.0, 1.5, 0.5, -2000.0, 7]


def test_a_cell_with_an_endless_number_is_a_row_that_is_told(check: Check) -> None:
    cell = "[{'role': 'user', 'content': 'Hi', 'n': " + "1" * 5000 + "}]"
    assert not check([{"prompt": cell, "chosen": "Yes.", "rejected": "No."}]).is_ready


def test_names_of_digits() -> None:
    assert timed(lambda: _NUMBER.sub("", "1" * 1_000_000 + "x")) == "1" * 1_000_000 + "x"
    assert [_NUMBER.sub("", name) for name in ("chosen12", "12", "a1b2", "a")] == ["chosen", "", "a1b", "a"]


def test_tokens_of_turns() -> None:
    assert timed(lambda: _DELIMITER.fullmatch("<" + "turn" * 200_000 + "!")) is None
    matched = ["<start_of_turn>", "</turn>", "<turn_x>", "<turnturn>"]
    assert all(map(_DELIMITER.fullmatch, matched))
    assert not any(map(_DELIMITER.fullmatch, ["<think>", "<tur>", "turn", "<turn"]))


def test_long_names_of_columns_and_keys(check: Check) -> None:
    """They are compared with each other, and stand in the paths of what is below them."""
    pair = {"prompt": "Why?", "chosen": "A", "rejected": "B"}
    timed(lambda: check([pair | {"a" * 300_000: "One text.", "a" * 299_999 + "b": "Another text."}]))
    below = {f"k{outer}": {f"k{inner}": [] for inner in range(200)} for outer in range(200)}
    asked = {"role": "user", "content": "Why?", "n" * 400_000: below}
    timed(lambda: check([{"prompt": [asked], "chosen": "A dog.", "rejected": "Two."}]))
