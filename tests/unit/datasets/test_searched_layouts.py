"""Layouts that were searched out in documentation and repositories and hold nothing to compare, or a judge's task."""

from typing import Any

import pytest

from .conftest import Check

ASKED, GOOD, BAD = "Which colour?", "It is blue.", "No idea."
USER, REPLY, OTHER = (
    {"role": "user", "content": ASKED},
    {"role": "assistant", "content": GOOD},
    {"role": "assistant", "content": BAD},
)
PAIR = {"line": 1, "prompt": [USER], "chosen": [REPLY], "rejected": [OTHER]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"data_source": "gsm8k", "prompt": [USER], "reward_model": {"style": "rule", "ground_truth": "72"}},
            "verl: data_source, prompt, reward_model",
        ),
        (
            {"question_id": 81, "model_1": "a", "model_2": "b", "g1_winner": "model_1", "g2_winner": "model_1"},
            "the answers stand in other files",
        ),
        ({"doc_id": 0, "doc": {"q": ASKED}, "target": "72", "resps": [[GOOD]]}, "lm-evaluation-harness"),
        ({"title": "t", "current_node": "c", "mapping": {"c": {"id": "c"}}}, "an export of ChatGPT"),
        ({"type": "text2text", "instances": [{"input": ASKED, "output": GOOD}]}, "jq -c '.instances[]'"),
    ],
)
@pytest.mark.parametrize("kind", ["preference", "demonstration", "unpaired"])
def test_what_holds_no_answers_to_compare_is_refused_by_its_name(
    check: Check, row: dict[str, Any], words: str, kind: str
) -> None:
    checked = check([row], kind=kind)
    assert checked.codes == {"unsupported-format": 1}
    assert words in checked.detail


def test_the_rows_of_lmflow_are_read_once_they_stand_alone(check: Check) -> None:
    row = {"chosen": {"messages": [USER, REPLY]}, "rejected": {"messages": [USER, OTHER]}}
    assert check([row]).rows == [PAIR]
    assert check([{"input": ASKED, "output": GOOD}], kind="demonstration").is_ready


def test_the_completions_of_nemo_rl_are_ranked(check: Check) -> None:
    row = {"context": [USER], "completions": [{"rank": 1, "completion": [OTHER]}, {"rank": 0, "completion": [REPLY]}]}
    checked = check([row])
    assert (checked.result.format, checked.rows) == ("ranked-list", [PAIR])


def test_thumbs_of_an_editor_are_labels_and_no_demonstrations(check: Check) -> None:
    rows = [{"prompt": ASKED, "completion": text, "feedback": text == GOOD} for text in (GOOD, BAD)]
    assert [row["label"] for row in check(rows, kind="unpaired").rows] == [True, False]
    refused = check(rows, kind="demonstration")
    assert refused.codes == {"wrong-kind": 1}
    texts = [{**row, "feedback": "a free text"} for row in rows]
    assert check(texts, kind="demonstration").is_ready


@pytest.mark.parametrize(
    "row",
    [
        {"orig_instruction": ASKED, "orig_response_A": GOOD, "orig_response_B": BAD, "orig_preference": "A",
         "instruction": "###Task: judge", "output": "[RESULT] A"},
        {"question_body": ASKED, "answer1_body": GOOD, "answer2_body": BAD, "score": [9, 2], "text": "9 2"},
    ],
)  # fmt: skip
def test_pairs_beside_the_task_of_a_judge_are_not_trained_on_as_its_answers(check: Check, row: dict[str, Any]) -> None:
    """They were read as demonstrations of the judge, under the advice to send them as such."""
    assert check([row]).rows == [PAIR]
    refused = check([row], kind="demonstration")
    assert (refused.codes, "kind=preference" in refused.detail) == ({"wrong-kind": 1}, True)


def test_votes_that_name_no_winner_are_set_aside(check: Check) -> None:
    vote = {"conversation_a": [USER, REPLY], "conversation_b": [USER, OTHER], "model_a_name": "m", "model_b_name": "n"}
    rows = [
        {**vote, "both_equal": True, "chosen_model_name": None},
        {**vote, "both_equal": False, "chosen_model_name": None},
        {**vote, "both_equal": False, "chosen_model_name": "m"},
    ]
    checked = check(rows)
    assert [row["line"] for row in checked.rows] == [3]
    assert {checked.codes["tie"], checked.codes["nothing-to-compare"]} == {1}


def test_a_conversation_without_a_rating_says_so(check: Check) -> None:
    rated = {"messages": [{"from": "user", "content": ASKED}, {"from": "assistant", "content": GOOD, "score": 1}]}
    unrated = {"messages": [{"from": "user", "content": "Hi"}, {"from": "assistant", "content": "Hello", "score": 0}]}
    checked = check([rated, unrated], kind="unpaired")
    assert [row["line"] for row in checked.rows] == [1]
    assert checked.codes["nothing-to-compare"] == 1


def test_numbers_of_paddle_that_do_not_fit_are_malformed(check: Check) -> None:
    row = {"src": [ASKED], "tgt": [], "response": [GOOD, BAD]}
    for sort in ([1], "1", [1, "high"]):
        assert check([{**row, "sort": sort}], format="sorted-responses").codes == {"invalid-label": 1}
    turns = {**row, "src": [ASKED, "And?"], "sort": [1, 0]}
    assert check([turns], format="sorted-responses").codes == {"different-prompts": 1}


def with_candidates(scores: dict[str, float], number: int) -> dict[str, Any]:
    candidates = [
        {"decoding_method": "top_p", "model": model, "text": f"{text} {number}", "scores": scores | {"bleu": bleu}}
        for model, text, bleu in (("m1", BAD, 0.1), ("m2", GOOD, 0.4))
    ]
    return {"id": number, "instruction": ASKED, "input": f"No {number}", "output": GOOD, "candidates": candidates}


def test_the_candidates_of_mix_instruct_are_not_lost(check: Check) -> None:
    """From the dataset card of llm-blender/mix-instruct."""
    rows = [with_candidates({"rouge 1": 0.5}, number) for number in range(2)]
    refused = check(rows)
    assert refused.codes == {"unsupported-format": 1}
    assert "jq -c '.candidates[] |= (.score = .scores.bleu)'" in refused.detail
    assert check(rows, kind="demonstration").codes == {"meaningful-field-ignored": 1}
    for row in rows:  # as the command does
        for candidate in row["candidates"]:
            candidate["score"] = candidate["scores"]["bleu"]
    followed = check(rows)
    assert [row["chosen"][0]["content"] for row in followed.rows] == [f"{GOOD} 0", f"{GOOD} 1"]
    assert followed.codes == {"meaningful-field-ignored": 2}


def test_a_score_beside_a_single_response_is_not_lost(check: Check) -> None:
    rows = [{"instruction": f"{ASKED} {number}", "response": GOOD, "score": number} for number in range(3)]
    for kind in ("preference", "unpaired"):
        refused = check(rows, kind=kind).result.refusal
        assert refused is not None
        assert refused.advice == ({"kind": "demonstration", "ignore": ["score"]},)
        assert "makes no pair" in refused.detail
        assert check(rows, **refused.advice[0]).codes.keys() <= {"repeated-response"}
    labelled = [{**row, "label": row["score"] > 1} for row in rows]
    assert [row["label"] for row in check(labelled, kind="unpaired").rows] == [False, False, True]


def ranked(*numbers: dict[str, Any]) -> list[dict[str, Any]]:
    answers = [{"text": text, **fields} for text, fields in zip((GOOD, BAD), numbers, strict=True)]
    return [{"prompt": ASKED, "responses": answers}]


def test_numbers_of_an_answer_are_compared(check: Check) -> None:
    agreed = check(ranked({"rank": 1, "score": 9}, {"rank": 2, "score": "3.5"}))
    assert agreed.rows == [PAIR]
    assert not agreed.codes
    rows = ranked({"rank": 1, "score": 3}, {"rank": 2, "score": 9})
    refused = check(rows)
    assert refused.codes == {"scores-disagree": 1}
    assert refused.result.refusal is not None
    by_rank, by_score = (check(rows, **change) for change in refused.result.refusal.advice)
    assert by_rank.rows == [PAIR]
    assert by_score.rows == [{**PAIR, "chosen": [OTHER], "rejected": [REPLY]}]


def test_other_keys_of_an_answer_that_mean_something_are_named(check: Check) -> None:
    checked = check(ranked({"rank": 1, "label": True, "model": "m"}, {"rank": 2, "score": "high", "rating": None}))
    assert checked.rows == [PAIR]
    named = [issue["detail"] for issue in checked.issues]
    assert [detail.split(" ")[0] for detail in named] == ["'responses[].label'", "'responses[].score'"]
    assert not check(ranked({"rank": 1, "label": 1}, {"rank": 2}), ignore=["responses[].label"]).codes
