"""What messages and rows say beside roles and texts comes through a check whole, or is refused by name."""

import json
from typing import Any

import pytest

from core.datasets.splitting import _group

from .conftest import Check

USER = {"role": "user", "content": "How many are left?"}
TOOL = {"type": "function", "function": {"name": "stock", "parameters": {"type": "object", "properties": {}}}}


def answer(content: str = "Seven.", **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def call(name: str, arguments: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **fields}


def pair(chosen: Any, rejected: Any, **fields: Any) -> dict[str, Any]:
    return {"prompt": [USER], "chosen": [chosen], "rejected": [rejected], **fields}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (answer("", tool_calls=[call("stock", '{"item": "lamp"}', id="c1")]), {"id": "c1"}),
        (answer("", tool_calls=[call("stock", {"item": "lamp"})]), {}),
        ({"role": "assistant", "content": None, "tool_calls": [call("stock", {"item": "lamp"})]}, {}),
        ({"role": "assistant", "tool_calls": [call("stock", {"item": "lamp"})]}, {}),
        (answer("", function_call={"name": "stock", "arguments": '{"item": "lamp"}'}), {}),
        (answer("", tool_calls=json.dumps([call("stock", {"item": "lamp"})])), {}),
        ({"from": "function_call", "value": '{"name": "stock", "arguments": {"item": "lamp"}}'}, {}),
        ({"role": "tool_call", "content": '[{"name": "stock", "arguments": "{\\"item\\": \\"lamp\\"}"}]'}, {}),
    ],
)
def test_a_call_is_kept_however_it_is_written(check: Check, message: dict[str, Any], expected: dict[str, str]) -> None:
    checked = check([pair(message, answer())])
    assert checked.is_ready, checked.result.refusal
    assert checked.rows[0]["chosen"] == [
        {"role": "assistant", "content": "", "tool_calls": [call("stock", {"item": "lamp"}, **expected)]}
    ]


@pytest.mark.parametrize(
    "calls",
    [
        ["stock"],
        [{"name": ""}],
        [call("stock", "{not json")],
        [call("stock", [1])],
        [call("stock", {}) | {"type": "custom"}],
        {"name": "stock"},
    ],
)
def test_a_call_that_cannot_be_read_is_refused(check: Check, calls: Any) -> None:
    checked = check([pair(answer(tool_calls=calls), answer("No."))])
    assert checked.codes == {"invalid-tool-call": 1}
    assert "/chosen/0/tool_calls" in checked.detail


def test_only_the_assistant_calls(check: Check) -> None:
    row = {"prompt": [USER | {"tool_calls": [call("stock", {})]}], "chosen": [answer()], "rejected": [answer("No.")]}
    assert check([row]).codes == {"invalid-tool-call": 1}


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_kept_under_one_name(check: Check, key: str) -> None:
    checked = check([pair(answer(**{key: "Count them."}), answer("No."))])
    assert checked.rows[0]["chosen"] == [answer(reasoning_content="Count them.")]


def test_two_reasonings_are_asked_about(check: Check) -> None:
    checked = check([pair(answer(reasoning="One.", thinking="Two."), answer("No."))])
    assert checked.codes == {"wrong-type": 1}


@pytest.mark.parametrize(
    "mark", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"training": False}, {"loss": 0}, {"loss_weight": 0}]
)
def test_a_turn_that_is_not_to_be_learnt_says_so(check: Check, mark: dict[str, Any]) -> None:
    row = {"messages": [USER, answer("Go away.", **mark), USER, answer(weight=1)]}
    checked = check([row], kind="demonstration")
    assert checked.rows[0]["response"] == [answer("Go away.", train=False), USER, answer()]


def test_what_differs_in_calls_or_reasoning_is_no_identical_pair(check: Check) -> None:
    calls = [answer("", tool_calls=[call(name, {})]) for name in ("ask", "delete")]
    checked = check(
        [
            pair(*calls),
            pair(answer(reasoning="Count."), answer(reasoning="Guess.")),
            pair(calls[0], calls[0]),
        ]
    )
    assert [row["line"] for row in checked.rows] == [1, 2]
    assert checked.codes == {"identical-pair": 1}


def test_prompts_that_differ_in_a_call_are_two_prompts(check: Check) -> None:
    rows = [
        {
            "prompt": [USER, answer("", tool_calls=[call("stock", {"item": item})]), {"role": "tool", "content": "7"}],
            "chosen": [answer()],
            "rejected": [answer("No.")],
        }
        for item in ("lamp", "kettle", "lamp")
    ]
    checked = check(rows)
    assert checked.codes == {"duplicate-row": 1}
    assert checked.result.report["statistics"]["duplicates"]["distinct_prompts"] == 2
    assert len({_group(json.dumps(row).encode(), 0) for row in checked.rows}) == 2


def test_tools_of_a_row_and_of_a_request(check: Check) -> None:
    plain = {"prompt": "Left?", "chosen": "Seven.", "rejected": "No."}
    bare = TOOL["function"]
    for tools in ([TOOL], [bare], json.dumps([bare]), [json.dumps(TOOL)]):
        assert check([plain | {"tools": tools}]).rows[0]["tools"] == [TOOL]
    request = {"input": {"messages": [USER], "tools": [TOOL]}, "preferred_output": [answer()]}
    assert check([request | {"non_preferred_output": [answer("No.")]}]).rows[0]["tools"] == [TOOL]
    assert "tools" not in check([plain | {"tools": []}]).rows[0]
    assert check([plain | {"tools": [{"name": 7}]}]).codes == {"invalid-tool-call": 1}


def test_documents_are_kept_as_objects_only(check: Check) -> None:
    plain = {"prompt": "Left?", "chosen": "Seven.", "rejected": "No."}
    documents = [{"title": "Stock", "text": "Seven lamps."}]
    assert check([plain | {"documents": documents}]).rows[0]["documents"] == documents
    checked = check([plain | {"documents": "doc-7"}])
    assert "documents" not in checked.rows[0]
    assert checked.result.report["statistics"]["ignored_fields"] == ["documents"]


def test_a_plain_row_gets_no_new_keys(check: Check) -> None:
    row = {"line": 1, "prompt": [USER], "chosen": [answer()], "rejected": [answer("No.")]}
    assert check([pair(answer(), answer("No."))]).rows == [row]


def test_keys_of_messages_that_nothing_reads_are_listed(check: Check) -> None:
    checked = check([pair(answer(id="m7", created=1), answer("No."))])
    assert checked.result.report["statistics"]["ignored_fields"] == ["chosen[].created", "chosen[].id"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What stands there?", "images": ["cup.jpg"]},
        {"prompt": "What stands there?", "video_path": "cup.mp4"},
        {"prompt": "What stands there?", "image_url": {"url": "https://example.org/cup.jpg"}},
        {"prompt": "<image>\nWhat stands there?"},
        {"prompt": "What stands there? <audio>"},
        {"prompt": [{"role": "user", "content": "What stands there?", "images": ["cup.jpg"]}]},
    ],
)
def test_what_only_a_picture_or_a_sound_answers_is_refused(check: Check, row: dict[str, Any]) -> None:
    checked = check([row | {"chosen": [answer("A cup.")], "rejected": [answer("A horse.")]} | _texts(row)])
    assert not checked.is_ready
    assert checked.codes.keys() <= {"needs-media", "not-text"}


def _texts(row: dict[str, Any]) -> dict[str, str]:
    return {"chosen": "A cup.", "rejected": "A horse."} if isinstance(row["prompt"], str) else {}


@pytest.mark.parametrize(
    "extra", [{"images": []}, {"image": None}, {"has_image": "no"}, {"video": False}, {"audio": ""}]
)
def test_a_column_without_a_picture_changes_nothing(check: Check, extra: dict[str, Any]) -> None:
    row = {"prompt": "Which tag shows a picture, <image> or <img>?", "chosen": "<img>.", "rejected": "<image>."}
    assert check([row | extra]).is_ready
