"""What a layout passes over is said: one of several columns for the same thing, and keys of messages."""

import json
from typing import Any

import pytest

from .conftest import Check

ASKED, GOOD, BAD = "How long does tea steep?", "Two minutes will do.", "All night, naturally."
SIDES = {"chosen": GOOD, "rejected": BAD}


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def bot(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def unused(checked: Any) -> list[str]:
    """The columns and keys named, each with a count and an example."""
    found = [issue["detail"] for issue in checked.issues if issue["code"] == "meaningful-field-ignored"]
    assert all("has it, the first" in detail or "have it, the first" in detail for detail in found)
    return [detail.split("'")[1] for detail in found]


@pytest.mark.parametrize(
    ("row", "kind", "passed_over"),
    [
        ({"question": ASKED, "query": "Why?", **SIDES}, "preference", "query"),
        ({"question": ASKED, "context": "A book on tea.", **SIDES}, "preference", "context"),
        ({"prompt": ASKED, "completion": GOOD, "response": BAD}, "demonstration", "response"),
        (
            {"instruction": ASKED, "input": "Green tea.", "context": "A book.", "output": GOOD},
            "demonstration",
            "context",
        ),
        ({"instruction": ASKED, "output": GOOD, "response": BAD}, "demonstration", "response"),
        ({"prompt": ASKED, "system": "Be brief.", "system_prompt": "Be long.", **SIDES}, "preference", "system_prompt"),
        (
            {"prompt": ASKED, "answer1": GOOD, "answer2": BAD, "choice": "left", "preference": "right"},
            "preference",
            "preference",
        ),
    ],
)
def test_of_two_columns_for_one_thing_the_other_is_named(check: Check, row: Any, kind: str, passed_over: str) -> None:
    checked = check([row], kind=kind)
    assert unused(checked) == [passed_over]
    assert passed_over in checked.result.report["statistics"]["ignored_fields"]
    assert not unused(check([row], kind=kind, ignore=[passed_over]))
    assert not unused(check([{**row, passed_over: ""}], kind=kind))


def test_of_two_columns_the_one_with_something_in_it_is_read(check: Check) -> None:
    assert check([{"question": "", "query": ASKED, **SIDES}]).rows[0]["prompt"] == [user(ASKED)]
    row = {"instruction": ASKED, "input": "", "context": "A book.", **SIDES}
    assert check([row]).rows[0]["prompt"] == [user(f"{ASKED}\nA book.")]
    assert (
        check([{"prompt": ASKED, "completion": "", "response": GOOD}], kind="demonstration").rows[0]["response"] == GOOD
    )


def test_what_an_instruction_is_about_must_be_a_text(check: Check) -> None:
    checked = check([{"instruction": ASKED, "input": ["Green", "black"], **SIDES}])
    assert checked.codes == {"wrong-type": 1}


def test_scores_and_ranks_that_contradict_each_other_are_refused(check: Check) -> None:
    row = {"prompt": ASKED, "responses": [GOOD, BAD], "scores": [9, 2], "ranks": [1, 2]}
    assert check([row]).rows[0]["chosen"] == [bot(GOOD)]
    checked = check([{**row, "ranks": [2, 1]}])
    assert checked.codes == {"scores-disagree": 1}
    assert check([{**row, "ranks": [2, 1]}], ignore=["scores"]).rows[0]["chosen"] == [bot(BAD)]


def test_every_pair_of_scores_is_compared_with_the_pair(check: Check) -> None:
    row = {"prompt": ASKED, **SIDES, "score_chosen": 8, "score_rejected": 2, "chosen-rating": 1, "rejected-rating": 5}
    assert check([row]).codes == {"scores-disagree": 1}


def test_labels_that_disagree_are_refused_however_they_are_written(check: Check) -> None:
    row = {"prompt": ASKED, "completion": GOOD, "label": 1.0, "kto_tag": "yes"}
    assert check([row, {**row, "prompt": "Why?", "label": "0.0", "kto_tag": False}], kind="unpaired").is_ready
    assert "invalid-label" in check([{**row, "kto_tag": "no"}], kind="unpaired").codes


KEYS = {"score": 3, "label": "good", "loss_mask": 0, "trainable": False, "thoughts": "Hm.", "attachments": ["a.pdf"]}


@pytest.mark.parametrize("key", KEYS)
def test_a_meaningful_key_of_a_message_is_named_in_every_layout(check: Check, key: str) -> None:
    asked, good, bad = user(ASKED), bot(GOOD, **{key: KEYS[key]}), bot(BAD)
    rows: list[tuple[Any, str, str]] = [
        ({"messages": [asked, good]}, "demonstration", "messages"),
        ({"conversations": [asked, good]}, "demonstration", "conversations"),
        ({"messages": [asked, good], "kto_tag": True}, "unpaired", "messages"),
        ({"prompt": [asked], "chosen": good, "rejected": bad}, "preference", "chosen"),
        ({"prompt": [asked], "chosen": [bad], "rejected": [good]}, "preference", "rejected"),
        ({"chosen": [asked, good], "rejected": [asked, bad]}, "preference", "chosen"),
        (
            {
                "input": {"messages": [asked, good, asked]},
                "preferred_output": [bot("x")],
                "non_preferred_output": [bad],
            },
            "preference",
            "input.messages",
        ),
    ]
    for row, kind, column in rows:
        name = f"{column}[].{key}"
        assert unused(check([row], kind=kind)) == [name]
        assert not unused(check([row], kind=kind, ignore=[name]))


def test_keys_that_count_for_the_assistant_only_are_named_elsewhere(check: Check) -> None:
    row = {"messages": [user(ASKED, reasoning_content="Hm.", weight=1), bot(GOOD, reasoning_content="So.", weight=1)]}
    assert unused(check([row], kind="demonstration")) == ["messages[].reasoning_content", "messages[].weight"]
    row = {"messages": [user(ASKED, weight=0, id=4), bot(GOOD)]}
    assert check([row], kind="demonstration").codes == {}


def test_a_second_text_of_a_message_is_named(check: Check) -> None:
    row = {"messages": [user(ASKED), bot(GOOD, value=BAD)]}
    assert unused(check([row], kind="demonstration")) == ["messages[].value"]


def test_an_empty_turn_is_context_in_the_rows(check: Check) -> None:
    checked = check([{"messages": [user(ASKED), bot(""), user("Well?"), bot(GOOD)]}], kind="demonstration")
    assert checked.codes == {"empty-turn": 1}
    assert checked.rows[0]["response"] == [bot("", train=False), user("Well?"), bot(GOOD)]


def test_strengths_of_both_signs_are_no_verdict_for_one_side(check: Check) -> None:
    rows = [
        {"prompt": f"{ASKED} {strength}", "response_1": GOOD, "response_2": BAD, "preference_strength": strength}
        for strength in (-2, 2, 2)
    ]
    assert "one-verdict-only" not in check(rows).codes


PAIR = {"prompt": ASKED, **SIDES}
JUDGED = {"prompt": ASKED, "response_1": GOOD, "response_2": BAD, "preference": "a"}


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (PAIR | {"persona": "A pirate."}, "persona"),
        (PAIR | {"sys_prompt": "Be brief."}, "sys_prompt"),
        (PAIR | {"available_tools": [{"name": "look"}]}, "available_tools"),
        (PAIR | {"dialogue": "A: hi. B: hello."}, "dialogue"),
        (PAIR | {"flipped": True}, "flipped"),
        (JUDGED | {"score_1": 3}, "score_1"),
        (JUDGED | {"rating_a": 3}, "rating_a"),
    ],
)
def test_names_that_mean_something_are_known_in_many_spellings(check: Check, row: Any, name: str) -> None:
    assert unused(check([row])) == [name]


def test_a_way_of_using_a_column_that_is_left_over_works(check: Check) -> None:
    """A warning names it, as a refusal does."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    for name, value in {
        "persona": "A pirate.",
        "available_tools": tools,
        "context": "A book.",
        "topic_x": None,
    }.items():
        row = {**PAIR, name: value}
        for detail in [issue["detail"] for issue in check([row]).issues]:
            columns = json.loads(detail.partition("columns=")[2].partition("}")[0] + "}")
            followed = check([row], columns=columns)
            assert not followed.codes
            assert "pirate" in str(followed.rows) or "look" in str(followed.rows) or "A book." in str(followed.rows)


@pytest.mark.parametrize("name", ["approved", "accepted", "is_correct", "verdict"])
@pytest.mark.parametrize("labels", [("thumbs_up", "thumbs_down"), (True, False), ("positive", "negative")])
def test_labels_beside_a_demonstration_decide(check: Check, name: str, labels: Any) -> None:
    rows = [{"prompt": f"{ASKED} {label}", "response": GOOD, name: label} for label in labels]
    refused = check(rows, kind="demonstration")
    assert refused.codes == {"field-to-decide": 1}
    assert refused.result.refusal is not None
    read = check(rows, **refused.result.refusal.advice[0])
    assert [row["label"] for row in read.rows] == [True, False]


def test_ranks_of_the_sides_are_compared_with_the_pair(check: Check) -> None:
    assert check([PAIR | {"chosen_rank": 2, "rejected_rank": 1}]).codes == {"scores-disagree": 1}
    assert not check([PAIR | {"chosen_rank": 1, "rejected_rank": 2}]).codes


def test_json_in_json_is_read_to_its_end(check: Check) -> None:
    twice = {name: json.dumps(json.dumps([turn])) for name, turn in
             {"prompt": user(ASKED), "chosen": bot(GOOD), "rejected": bot(BAD)}.items()}  # fmt: skip
    checked = check([twice])
    assert checked.rows[0]["chosen"] == [bot(GOOD)]
    assert checked.codes == {"decoded-texts": 1}


@pytest.mark.parametrize("text", ["### Human: Hi\n### Assistant: Hello", "\n\nHuman: Hi\n\nAssistant: Hello"])
def test_a_whole_text_of_named_speakers_is_remarked_on(check: Check, text: str) -> None:
    assert check([{"text": text}], kind="demonstration").codes == {"rendered-text": 1}
