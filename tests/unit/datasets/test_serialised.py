"""Lists and messages written as text: in the cells of tables, and in JSON as exports of databases put it there."""

import csv
import io
import json
from typing import Any

import pytest

from core.datasets.cells.notations import NotationError, parse_notation

from .conftest import Check, jsonl

TEXTS = [
    ("Name a fruit.", "Apple.", "I don't know."),
    ('Two lines, "quoted".', "One, \"first\"\nTwo, 'second'", "C:\\new\\table\tend"),
    ("How many?", "12", "007"),
    ("Is it missing?", "null", "None"),
    ("Brackets?", "{a}, [b]: c = (d)", "it's; \\n é 日本"),
]
MESSAGES = [
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }
    for prompt, chosen, rejected in TEXTS
]
FIELDS = ("prompt", "chosen", "rejected")


def table(rows: list[dict[str, str]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def normalised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "line"} for row in rows]


def by_numpy(value: list[dict[str, str]]) -> str:
    return "[" + "\n ".join(map(repr, value)) + "]"


def duckdb_text(text: str) -> str:
    if not text or set(text) & set("'\"()[]{}:,=\\") or text != text.strip() or text.lower() == "null":
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return text


def by_duckdb(value: list[dict[str, str]]) -> str:
    shown = (", ".join(f"'{key}': {duckdb_text(text)}" for key, text in message.items()) for message in value)
    return "[" + ", ".join(f"{{{inner}}}" for inner in shown) + "]"


def by_duckdb_map(value: list[dict[str, str]]) -> str:
    shown = (", ".join(f"{key}={duckdb_text(text)}" for key, text in message.items()) for message in value)
    return "[" + ", ".join(f"{{{inner}}}" for inner in shown) + "]"


WRITERS = {
    "json": json.dumps,
    "json, indented": lambda value: "\n " + json.dumps(value, indent=1),
    "python": repr,
    "numpy": by_numpy,
    "duckdb": by_duckdb,
    "duckdb maps": by_duckdb_map,
}


@pytest.mark.parametrize("as_table", [True, False], ids=["table", "json lines"])
@pytest.mark.parametrize("writer", WRITERS)
def test_messages_written_as_text_are_messages(check: Check, writer: str, as_table: bool) -> None:
    rows = [{name: WRITERS[writer](row[name]) for name in FIELDS} for row in MESSAGES]
    checked = check(table(rows) if as_table else jsonl(rows))
    assert checked.is_ready, checked.detail
    assert normalised(checked.rows) == MESSAGES
    assert checked.codes == {"missing-value-as-text": 1}  # the text 'None'


def test_a_list_of_messages_each_a_text(check: Check) -> None:
    rows = [{name: [json.dumps(message) for message in row[name]] for name in FIELDS} for row in MESSAGES]
    assert normalised(check(rows).rows) == MESSAGES


@pytest.mark.parametrize("responses", ['["a", "b"]', "['a', 'b']", "['a' 'b']", "[a, b]"])
@pytest.mark.parametrize("scores", ["[1, 2.5]", "[1.  2.5]", "[np.float64(1.0), np.float64(2.5)]"])
def test_lists_of_answers_and_scores(check: Check, responses: str, scores: str) -> None:
    (row,) = check(table([{"prompt": "q", "responses": responses, "scores": scores}])).rows
    assert [row[side][0]["content"] for side in ("chosen", "rejected")] == ["b", "a"]


def test_a_text_that_is_a_list_stays_a_text_in_a_column_of_texts(check: Check) -> None:
    rows = [
        {"prompt": f"Give me JSON, number {number}.", "chosen": f'["{number}"]', "rejected": "{}"} for number in "ab"
    ]
    checked = check(rows)
    assert normalised(checked.rows) == rows
    assert "messages-as-text" not in checked.codes


def test_messages_among_plain_texts_are_told(check: Check) -> None:
    plain = [dict(zip(FIELDS, texts, strict=True)) for texts in TEXTS]
    answer = json.dumps(MESSAGES[0]["chosen"])
    checked = check([*plain, {"prompt": "Write a chat request.", "chosen": answer, "rejected": "No."}])
    assert checked.rows[-1]["chosen"] == answer
    assert checked.lines("messages-as-text") == [6]


@pytest.mark.parametrize("writer", ["json", "python", "duckdb"])
def test_a_cut_cell_never_becomes_a_message(check: Check, writer: str) -> None:
    long = MESSAGES[0] | {"chosen": [{"role": "assistant", "content": "word, " * 6_000}]}
    rows = [{name: WRITERS[writer](row[name])[:32_767] for name in FIELDS} for row in [*MESSAGES, long]]
    checked = check(table(rows), on_error="skip")
    assert normalised(checked.rows) == MESSAGES
    (issue,) = [found for found in checked.issues if found["code"] == "invalid-cell"]
    assert "breaks off after 32,767 characters. A spreadsheet keeps 32,767" in issue["detail"]


def test_a_plain_cell_as_long_as_a_spreadsheet_keeps_is_told(check: Check) -> None:
    rows = [
        {"prompt": "q", "chosen": "y" * 32_765 + "🙂", "rejected": "n"},
        {"prompt": "q", "chosen": "a", "rejected": "n"},
    ]
    checked = check(table(rows))
    assert checked.lines("cell-may-be-cut") == [2]
    assert "cell-may-be-cut" not in check(rows).codes


def test_texts_that_are_json_strings_lose_their_quotes_and_that_is_said(check: Check) -> None:
    plain = [dict(zip(FIELDS, texts, strict=True)) for texts in TEXTS]
    rows = [{name: json.dumps(text) for name, text in row.items()} for row in plain]
    for content in (rows, table(rows)):
        checked = check(content)
        assert normalised(checked.rows) == plain
        assert checked.codes["decoded-texts"] == 1


def test_quoted_sentences_are_texts(check: Check) -> None:
    rows = [{"prompt": f'"Quote {number}."', "chosen": "Yes.", "rejected": "No."} for number in range(3)]
    assert normalised(check(rows).rows) == rows


REFUSED = {
    "[{'role': 'user', 'content': 'cut her": "breaks off after 37 characters",
    '[{"role": "user", "content": "cut her': "breaks off after 37 characters",
    "[{'role': user, 'content': Hi, there}]": "from its character 37 on",
    "['a' 'b' ... 'c']": "left out its middle",
    '[{"role": "user", "score": NaN}]': "no list or object",
    "[[[[[[": "nested more than 4 levels",
    "[1] \\ [2]": "from its character 5 on",
    "{'a': 1, 'a': 2}": "a key stands twice",
    "['\\ud800']": "half of a surrogate pair",
    "[object Object] here": "no list or object",
    "plain": "no list or object",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_no_notation_has(text: str) -> None:
    with pytest.raises(NotationError, match=REFUSED[text]):
        parse_notation(text, 4)


def test_what_python_prints() -> None:
    value = [{"a": None, "b": True, "c": -1.5, "d": (1, "x"), "e": [], "f": {}, "g": "\x00\x1b\u2028é🙂\\n'\""}]
    assert parse_notation(repr(value), 64) == [value[0] | {"d": [1, "x"]}]
    printed = "{'role': 'user', 'at': datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc), 'n': array([1, 2])}"
    assert parse_notation(printed, 64) == {"role": "user", "at": None, "n": [1, 2]}
    assert parse_notation("[{'x': array([{'y': 1}, {'y': 2}], dtype=object)}]", 64) == [{"x": [{"y": 1}, {"y": 2}]}]
