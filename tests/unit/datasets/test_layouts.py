"""One row of each layout, and what becomes of it. Every layout is here."""

import json
from typing import Any

import pytest

from core.datasets.layouts.registry import LAYOUTS, LAYOUTS_BY_NAME

from .conftest import Check

Row = dict[str, Any]


def user(content: str) -> Row:
    return {"role": "user", "content": content}


def bot(content: str) -> Row:
    return {"role": "assistant", "content": content}


GOOD, BAD, ASKED = "It is blue.", "No idea.", "Which colour?"
PAIR = {"prompt": [user(ASKED)], "chosen": [bot(GOOD)], "rejected": [bot(BAD)]}
TEXT_PAIR = {"prompt": ASKED, "chosen": GOOD, "rejected": BAD}
SINGLE = {"prompt": [user(ASKED)], "response": [bot(GOOD)]}
SYSTEM = {"role": "system", "content": "Be brief."}
CASES: dict[str, tuple[Row, list[Row]]] = {
    "openai": (
        {"input": {"messages": [user(ASKED)]}, "preferred_output": [bot(GOOD)], "non_preferred_output": [bot(BAD)]},
        [PAIR],
    ),
    "turbo-alignment": (
        {"context": [user(ASKED)], "answer_w": {"role": "bot", "content": GOOD}, "answer_l": bot(BAD)},
        [PAIR],
    ),
    "message-columns": (
        {
            "chosen_messages": [user(ASKED), {"role": "assistant", "content": [{"type": "text", "value": GOOD}]}],
            "rejected_messages": [user(ASKED), bot(BAD)],
        },
        [PAIR],
    ),
    "sharegpt-ranking": (
        {
            "conversations": [{"from": "human", "value": ASKED}],
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
        [PAIR],
    ),
    "colossalchat": (
        {"context": [{"from": "human", "content": ASKED}], "chosen": [bot(GOOD)], "rejected": [bot(BAD)]},
        [PAIR],
    ),
    "alpaca-ranking": (
        {"instruction": "Which", "input": "colour?", "chosen": GOOD, "rejected": BAD, "history": [["a", "b"]]},
        [{**PAIR, "prompt": [user("a"), bot("b"), user("Which\ncolour?")]}],
    ),
    "explicit": (TEXT_PAIR, [TEXT_PAIR]),
    "conversational": (PAIR, [PAIR]),
    "ultrafeedback": (
        {"prompt": ASKED, "chosen": [user(ASKED), bot(GOOD)], "rejected": [user(ASKED), bot(BAD)], "score_chosen": 8},
        [PAIR],
    ),
    "orca-pairs": (
        {"system": "Be brief.", "question": ASKED, "chosen": GOOD, "rejected": BAD},
        [{**PAIR, "prompt": [SYSTEM, user(ASKED)]}],
    ),
    "hh": (
        {
            "chosen": f"\n\nHuman: {ASKED}\n\nAssistant: {GOOD}\n\nAssistant: More.",
            "rejected": f"\n\nHuman: {ASKED}\n\nAssistant: {BAD}",
        },
        [{**PAIR, "chosen": [bot(f"{GOOD}\n\nAssistant: More.")]}],
    ),
    "implicit": (
        {"chosen": "The sky today is blue.", "rejected": "The sky today is black."},
        [{"prompt": "The sky today is", "chosen": " blue.", "rejected": " black."}],
    ),
    "implicit-conversational": (
        {"chosen": [user(ASKED), bot(GOOD)], "rejected": [user(ASKED), bot(BAD)]},
        [PAIR],
    ),
    "behaviour-evals": (
        {"question": ASKED, "answer_matching_behavior": f" {GOOD}", "answer_not_matching_behavior": f" {BAD}"},
        [PAIR],
    ),
    "pandalm": (
        {
            "instruction": ASKED,
            "input": "",
            "response1": BAD,
            "response2": GOOD,
            "annotator1": 2,
            "annotator2": 1,
            "annotator3": 2,
        },
        [PAIR],
    ),
    "llmbar": ({"input": ASKED, "output_1": GOOD, "output_2": BAD, "label": "a"}, [PAIR]),
    "two-responses": ({"prompt": ASKED, "response_1": BAD, "response_2": GOOD, "preference": "b"}, [PAIR]),
    "helpsteer": ({"prompt": ASKED, "response_1": GOOD, "response_2": BAD, "preference_strength": -2}, [PAIR]),
    "helpsteer3": (
        {"context": [user(ASKED)], "response1": BAD, "response2": GOOD, "overall_preference": 3},
        [PAIR],
    ),
    "pku-saferlhf": ({"prompt": ASKED, "response_0": BAD, "response_1": GOOD, "better_response_id": 1}, [PAIR]),
    "shp": ({"history": ASKED, "human_ref_A": GOOD, "human_ref_B": BAD, "labels": 1}, [PAIR]),
    "webgpt": (
        {"question": {"full_text": ASKED}, "answer_0": BAD, "answer_1": GOOD, "score_0": -0.5, "score_1": 0.5},
        [PAIR],
    ),
    "arena": (
        {
            "conversation_a": [user(ASKED), bot(BAD)],
            "conversation_b": [user(ASKED), bot(GOOD)],
            "winner": "model_b",
        },
        [PAIR],
    ),
    "message-tree": (
        {
            "prompt": {
                "role": "prompter",
                "text": ASKED,
                "replies": [
                    {"role": "assistant", "text": BAD, "rank": 1, "replies": []},
                    {"role": "assistant", "text": GOOD, "rank": 0, "replies": []},
                    {"role": "assistant", "text": "gone", "rank": 2, "deleted": True, "replies": []},
                ],
            }
        },
        [PAIR],
    ),
    "pairwise-list": (
        {
            "question": ASKED,
            "prediction 1": BAD,
            "prediction 2": GOOD,
            "prediction 3": "Green.",
            "preference": [2, 0, 1],
        },
        [PAIR, {**PAIR, "rejected": [bot("Green.")]}],
    ),
    "ranked-list": (
        {
            "instruction": ASKED,
            "completions": [
                {"response": BAD, "overall_score": 2},
                {"response": GOOD, "overall_score": 9.5},
                {"response": "Green.", "overall_score": 2},
            ],
        },
        [PAIR, {**PAIR, "rejected": [bot("Green.")]}],
    ),
    "rejected-response": ({"messages": [user(ASKED), bot(GOOD)], "rejected_response": BAD}, [PAIR]),
    "rejected-messages": (
        {"messages": [user(ASKED), bot(GOOD)], "rejected_messages": [user(ASKED), bot(BAD)]},
        [PAIR],
    ),
    "messages-pair": ({"messages": [user(ASKED)], "chosen": bot(GOOD), "rejected": bot(BAD)}, [PAIR]),
    "query-response": (
        {"query": ASKED, "response": GOOD, "rejected_response": BAD, "history": [["a", "b"]], "system": "Be brief."},
        [{**PAIR, "prompt": [SYSTEM, user("a"), bot("b"), user(ASKED)]}],
    ),
    "response-columns": ({"prompt": ASKED, "chosen_response": GOOD, "rejected_response": BAD}, [PAIR]),
    "output-list": ({"instruction": ASKED, "input": "", "output": [GOOD, BAD]}, [PAIR]),
    "step-dpo": (
        {"prompt": ASKED, "initial_reason_steps": "It ", "chosen": "is blue.", "rejected": "has none."},
        [{**PAIR, "chosen": [bot("It is blue.")], "rejected": [bot("It has none.")]}],
    ),
    "style-lists": (
        {"prompt": ASKED, "chosen": [GOOD, "Blue."], "rejected": [BAD, "None."]},
        [PAIR, {**PAIR, "chosen": [bot("Blue.")], "rejected": [bot("None.")]}],
    ),
    "alpaca-eval": (
        {"instruction": "Which", "input": "colour?", "output_1": BAD, "output_2": GOOD, "preference": 1.73},
        [{**PAIR, "prompt": [user("Which\ncolour?")]}],
    ),
    "auto-j": ({"prompt": ASKED, "response 1": GOOD, "response 2": BAD, "label": "a"}, [PAIR]),
    "judge-bench": ({"question": ASKED, "response_A": BAD, "response_B": GOOD, "label": "B>A"}, [PAIR]),
    "arena-55k": (
        {
            "prompt": json.dumps([ASKED]),
            "response_a": json.dumps([BAD]),
            "response_b": json.dumps([GOOD]),
            "winner_model_a": 0,
            "winner_model_b": 1,
            "winner_tie": 0,
        },
        [PAIR],
    ),
    "label-studio": (
        {
            "data": {"prompt": ASKED, "answer1": BAD, "answer2": GOOD},
            "annotations": [{"result": [{"type": "pairwise", "value": {"selected": "right"}}]}],
        },
        [PAIR],
    ),
    "label-studio-min": ({"prompt": ASKED, "answer1": BAD, "answer2": GOOD, "comparison": "right"}, [PAIR]),
    "vertex": (
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [{"role": "user", "parts": [{"text": ASKED}]}],
            "completions": [
                {"score": 0.0, "completion": {"role": "model", "parts": [{"text": BAD}]}},
                {"score": 1.0, "completion": {"role": "model", "parts": [{"text": GOOD}]}},
            ],
        },
        [{**PAIR, "prompt": [SYSTEM, user(ASKED)]}],
    ),
    "nova": (
        {
            "system": [{"text": "Be brief."}],
            "messages": [
                {"role": "user", "content": [{"text": ASKED}]},
                {
                    "role": "assistant",
                    "candidates": [
                        {"content": [{"text": GOOD}], "preferenceLabel": "preferred"},
                        {"content": [{"text": BAD}], "preferenceLabel": "non-preferred"},
                    ],
                },
            ],
        },
        [{**PAIR, "prompt": [SYSTEM, user(ASKED)]}],
    ),
    "prodigy": (
        {
            "text": ASKED,
            "options": [{"id": "x", "text": BAD}, {"id": "y", "text": GOOD}],
            "accept": ["y"],
            "answer": "accept",
        },
        [PAIR],
    ),
    "summaries": (
        {"info": {"post": ASKED}, "summaries": [{"text": BAD}, {"text": GOOD}], "choice": 1},
        [PAIR],
    ),
    "stack-exchange": (
        {"question": ASKED, "answers": [{"text": BAD, "pm_score": 1}, {"text": GOOD, "pm_score": 4}]},
        [PAIR],
    ),
    "open-webui": (
        {
            "data": {"rating": -1},
            "meta": {"message_id": "m2"},
            "snapshot": {
                "chat": {
                    "chat": {
                        "history": {
                            "messages": {
                                "m1": {"id": "m1", "parentId": None, "role": "user", "content": ASKED},
                                "m2": {"id": "m2", "parentId": "m1", "role": "assistant", "content": GOOD},
                            }
                        }
                    }
                }
            },
        },
        [{**SINGLE, "label": False}],
    ),
    "langfuse": (
        {"input": {"messages": [user(ASKED)]}, "output": bot(GOOD), "scores": [{"name": "thumb", "value": 1}]},
        [{**SINGLE, "label": True}],
    ),
    "doccano": ({"text": ASKED, "label": [GOOD]}, [SINGLE]),
    "two-outputs": ({"instruction": ASKED, "output_1": BAD, "output_2": GOOD, "label": "b"}, [PAIR]),
    "conversation-columns": (
        {"chosen_conversations": [user(ASKED), bot(GOOD)], "rejected_conversations": [user(ASKED), bot(BAD)]},
        [PAIR],
    ),
    "nested-conversations": (
        {
            "chosen": {"system": "Be brief.", "tools": [""], "messages": [user(ASKED), bot(GOOD)]},
            "rejected": {"system": "Be brief.", "tools": [""], "messages": [user(ASKED), bot(BAD)]},
        },
        [{**PAIR, "prompt": [SYSTEM, user(ASKED)]}],
    ),
    "rejected-message": (
        {"messages": [user(ASKED), bot(GOOD)], "rejected_message": bot(BAD), "split": "train"},
        [PAIR],
    ),
    "rejected-answer": ({"instruction": ASKED, "output": GOOD, "rejected_answer": BAD}, [PAIR]),
    "sorted-responses": (
        {"src": ["Hi", ASKED], "tgt": ["Hello"], "response": [BAD, GOOD], "sort": [0, 1]},
        [{**PAIR, "prompt": [user("Hi"), bot("Hello"), user(ASKED)]}],
    ),
    "preference-collection": (
        {
            "orig_instruction": ASKED,
            "orig_response_A": BAD,
            "orig_response_B": GOOD,
            "orig_preference": "B",
            "orig_score_A": "1",
            "orig_score_B": "5",
            "instruction": "###Task: judge",
            "output": "[RESULT] B",
        },
        [PAIR],
    ),
    "judge-lm": (
        {"question_body": ASKED, "answer1_body": BAD, "answer2_body": GOOD, "score": [2.0, 9], "text": "2 9"},
        [PAIR],
    ),
    "reward-bench-2": (
        {"prompt": ASKED, "chosen": [GOOD], "rejected": [BAD, "Red."], "num_correct": 1},
        [PAIR, {**PAIR, "rejected": [bot("Red.")]}],
    ),
    "rmb": (
        {"conversation_input": [user(ASKED)], "bon_best": {"answer": GOOD}, "loser_list": [{"answer": BAD}]},
        [PAIR],
    ),
    "human-preference": ({"prompt": ASKED, "response_1": BAD, "response_2": GOOD, "winner": "model_b"}, [PAIR]),
    "stack-exchange-paired": ({"question": ASKED, "response_j": GOOD, "response_k": BAD}, [PAIR]),
    "positive-negative": ({"prompt": ASKED, "pos_resp": GOOD, "neg_resp": BAD}, [PAIR]),
    "unified-feedback": (
        {
            "conv_A": [user(ASKED), bot(BAD)],
            "conv_B": [user(ASKED), bot(GOOD)],
            "conv_A_rating": 1.0,
            "conv_B_rating": 4,
        },
        [PAIR],
    ),
    "named-winner": (
        {
            "conversation_a": [user(ASKED), bot(BAD)],
            "conversation_b": [user(ASKED), bot(GOOD)],
            "model_a_name": "m",
            "model_b_name": "n",
            "chosen_model_name": "n",
            "both_equal": False,
        },
        [PAIR],
    ),
    "search-arena": (
        {"messages_a": [user(ASKED), bot(GOOD)], "messages_b": [user(ASKED), bot(BAD)], "winner": "model_a", "turn": 1},
        [PAIR],
    ),
    "prism": (
        {
            "conversation_history": [
                {"turn": 0, "role": "user", "content": ASKED},
                {"turn": 0, "role": "model", "content": BAD, "if_chosen": False, "score": 9},
                {"turn": 0, "role": "model", "content": GOOD, "if_chosen": True, "score": 90},
                {"turn": 1, "role": "user", "content": "Sure?"},
                {"turn": 1, "role": "model", "content": "Yes.", "if_chosen": True, "score": 70},
                {"turn": 1, "role": "model", "content": "No.", "if_chosen": False, "score": 30},
            ]
        },
        [
            PAIR,
            {"prompt": [user(ASKED), bot(GOOD), user("Sure?")], "chosen": [bot("Yes.")], "rejected": [bot("No.")]},
        ],
    ),
    "chat-ui": (
        {
            "messages": [
                {"from": "user", "content": ASKED},
                {"from": "assistant", "content": GOOD, "score": 1},
                {"from": "user", "content": "Sure?"},
                {"from": "assistant", "content": "No.", "score": -1},
            ]
        },
        [
            {**SINGLE, "label": True},
            {"prompt": [user(ASKED), bot(GOOD), user("Sure?")], "response": [bot("No.")], "label": False},
        ],
    ),
    "gpt4all": (
        {"conversation": [user(ASKED), {**bot(GOOD), "rating": "negative"}]},
        [{**SINGLE, "label": False}],
    ),
    "xtuner": (
        {
            "conversation": [
                {"system": "Be brief.", "input": ASKED, "output": GOOD},
                {"input": "Sure?", "output": "Yes."},
            ]
        },
        [{"prompt": [SYSTEM, user(ASKED)], "response": [bot(GOOD), user("Sure?"), bot("Yes.")]}],
    ),
    "input-output": ({"input": ASKED, "output": GOOD}, [SINGLE]),
    "input-output-label": ({"input": ASKED, "output": GOOD, "label": 0}, [{**SINGLE, "label": False}]),
    "source-target": ({"src": ASKED, "tgt": GOOD}, [SINGLE]),
    "unpaired-alpaca": (
        {"instruction": ASKED, "input": "", "output": GOOD, "kto_tag": False},
        [{**SINGLE, "label": False}],
    ),
    "unpaired": (
        {"prompt": ASKED, "completion": GOOD, "label": "desirable"},
        [{"prompt": ASKED, "response": GOOD, "label": True}],
    ),
    "unpaired-messages": ({"messages": [user(ASKED), bot(GOOD)], "kto_tag": False}, [{**SINGLE, "label": False}]),
    "unpaired-turbo-alignment": (
        {"context": [user(ASKED)], "answer": bot(GOOD), "is_desirable": True},
        [{**SINGLE, "label": True}],
    ),
    "messages": (
        {"messages": [user(ASKED), bot(GOOD), user("Sure?"), bot("Yes.")]},
        [{"prompt": [user(ASKED)], "response": [bot(GOOD), user("Sure?"), bot("Yes.")]}],
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": GOOD}]},
        [SINGLE],
    ),
    "prompt-completion": ({"prompt": ASKED, "completion": GOOD}, [{"prompt": ASKED, "response": GOOD}]),
    "alpaca": (
        {"instruction": ASKED, "input": "", "output": GOOD},
        [{"prompt": [user(ASKED)], "response": GOOD}],
    ),
    "text": ({"text": GOOD}, [{"prompt": "", "response": GOOD}]),
    "responses": (
        {"prompt": ASKED, "response": GOOD, "model": "job_1"},
        [{"prompt": ASKED, "response": GOOD, "model": "job_1"}],
    ),
}
"""Layout -> a row as files have it, and the normalised rows."""


def test_every_layout_has_its_case() -> None:
    differing = CASES.keys() ^ LAYOUTS_BY_NAME.keys()
    assert not differing, f"CASES has one too many, or none, of {sorted(differing)}: a row and what is read of it"


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_recognised_and_read(check: Check, name: str) -> None:
    row, expected = CASES[name]
    kind = LAYOUTS_BY_NAME[name].kind
    for options in ({}, {"format": name}):
        checked = check([row], kind=kind, **options)
        assert checked.is_ready, checked.detail
        assert checked.result.format == name
        wanted = [{"line": 1, **item} for item in expected]
        if name == "alpaca":  # its response is one message
            wanted[0]["response"] = [bot(GOOD)]
        assert checked.rows == wanted


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"responses"}))
def test_a_layout_sent_as_another_kind_names_its_own(check: Check, name: str) -> None:
    kind = LAYOUTS_BY_NAME[name].kind
    for other in {layout.kind for layout in LAYOUTS} - {kind}:
        checked = check([CASES[name][0]], kind=other)
        assert not checked.is_ready
        assert checked.codes == {"wrong-kind": 1}
        assert f"kind={kind}" in checked.detail


@pytest.mark.parametrize("name", CASES)
def test_a_row_of_a_layout_with_a_null_is_malformed_not_read(check: Check, name: str) -> None:
    """No text 'None' ever comes out, whichever field is null."""
    row = CASES[name][0]
    for field in row:
        checked = check([row, {**row, field: None}], kind=LAYOUTS_BY_NAME[name].kind, on_error="skip", format=name)
        assert all("None" not in str(item["prompt"]) + str(item.get("chosen", "")) for item in checked.rows)
        assert len(checked.rows) in (len(CASES[name][1]), 2 * len(CASES[name][1]))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value below the row stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *places(item, (*path, key)))]


@pytest.mark.parametrize("name", CASES)
def test_a_value_of_another_type_anywhere_in_a_layout_gets_a_verdict(check: Check, name: str) -> None:
    """Two of each row, so that the layout stays recognised."""
    row = CASES[name][0]
    for path in places(row):
        rows = [row, row]
        for value in ([1], {"a": 1}, True, None):
            rows.append(json.loads(json.dumps(row)))
            holder = rows[-1]
            for step in path[:-1]:
                holder = holder[step]
            holder[path[-1]] = value
        check(rows, kind=LAYOUTS_BY_NAME[name].kind, format=name, on_error="skip")


@pytest.mark.parametrize(
    "response",
    ["", " ", "None", '[{"role": "user", "content": "x"}]', '{"a": 1}', "<|im_start|>user\nx<|im_end|>", "<image>"],
)
@pytest.mark.parametrize("prompt", [ASKED, [user(ASKED)]])
def test_responses_are_kept_whatever_they_are(check: Check, prompt: Any, response: str) -> None:
    """A judge must see what the model said, nothing decoded, left out or mended."""
    checked = check([{"prompt": prompt, "response": response, "model": "m"}] * 2, kind="responses")
    kept = response if isinstance(prompt, str) else [bot(response)]
    assert checked.rows == [{"line": line, "prompt": prompt, "response": kept, "model": "m"} for line in (1, 2)]


@pytest.mark.parametrize("model", ["", "x" * 256, 3, ["m"]])
def test_a_model_that_is_no_name_is_refused(check: Check, model: Any) -> None:
    checked = check([{"prompt": ASKED, "response": GOOD, "model": model}], kind="responses")
    assert not checked.is_ready
    assert "'model' must be a model's name" in checked.detail


def test_columns_are_mapped(check: Check) -> None:
    row = {"q": ASKED, "good": GOOD, "bad": BAD, "prompt": "something else"}
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    assert check([row], columns=columns).rows == [{"line": 1, **TEXT_PAIR}]


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("A: Paris", "A: Pa, well", "A:"),
        ("A: 19 of them", "A: 15 of them", "A:"),
        ("One line\nParis", "One line\nRome", "One line\n"),
        ("法国的首都是哪里？巴黎。", "法国的首都是哪里？里昂。", "法国的首都是哪里？"),
        ("say it  twice", "say it  once", "say it"),
    ],
)
def test_an_implicit_prompt_splits_no_word(check: Check, chosen: str, rejected: str, prompt: str) -> None:
    (row,) = check([{"chosen": chosen, "rejected": rejected}]).rows
    assert row == {
        "line": 1,
        "prompt": prompt,
        "chosen": chosen.removeprefix(prompt),
        "rejected": rejected.removeprefix(prompt),
    }


def test_transcripts_of_several_turns_keep_their_turns(check: Check) -> None:
    shared = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Colour?\n\nAssistant:"
    (row,) = check([{"chosen": f"{shared} Blue", "rejected": f"{shared} Bl"}]).rows
    assert row["prompt"] == [user("Hi"), bot("Hello"), user("Colour?")]
    assert (row["chosen"], row["rejected"]) == ([bot("Blue")], [bot("Bl")])


def test_ties_and_votes_without_a_majority_are_set_aside(check: Check) -> None:
    votes = CASES["pandalm"][0]
    checked = check([votes, {**votes, "annotator1": 0, "annotator2": 1, "annotator3": 2}])
    assert (checked.codes, checked.result.num_set_aside, len(checked.rows)) == ({"tie": 1}, 1, 1)
