"""What columns say is used, or said: system prompts, verdicts over the whole file, scores, what is left over."""

from typing import Any

import pytest

from core.domain.errors import InvalidRequest

from .conftest import Check

ASKED, GOOD, BAD = "How long does tea steep?", "Two minutes will do.", "All night, naturally."
PAIR = {"prompt": ASKED, "chosen": GOOD, "rejected": BAD}
JUDGED = {"prompt": ASKED, "response_1": GOOD, "response_2": BAD}
SYSTEM = {"role": "system", "content": "Be brief."}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def judged(*verdicts: Any) -> list[dict[str, Any]]:
    return [{**JUDGED, "prompt": f"{ASKED} ({n})", "preference": verdict} for n, verdict in enumerate(verdicts)]


@pytest.mark.parametrize("name", ["system", "system_prompt", "system_message"])
@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (PAIR, "preference"),
        ({"question": ASKED, "chosen": GOOD, "rejected": BAD}, "preference"),
        ({"conversations": [user(ASKED)], "chosen": bot(GOOD), "rejected": bot(BAD)}, "preference"),
        ({"prompt": ASKED, "chosen": [user(ASKED), bot(GOOD)], "rejected": [user(ASKED), bot(BAD)]}, "preference"),
        ({**JUDGED, "preference": "a"}, "preference"),
        ({"messages": [user(ASKED), bot(GOOD)]}, "demonstration"),
        ({"instruction": ASKED, "output": GOOD}, "demonstration"),
        ({"prompt": ASKED, "completion": GOOD, "label": True}, "unpaired"),
    ],
)
def test_a_system_prompt_in_its_column_is_the_first_message(check: Check, name: str, row: Any, kind: str) -> None:
    checked = check([{**row, name: SYSTEM["content"]}], kind=kind)
    assert checked.rows[0]["prompt"] == [SYSTEM, user(ASKED)]
    assert checked.rows[0].get("chosen", checked.rows[0].get("response")) == [bot(GOOD)]
    assert not checked.result.report["statistics"]["ignored_fields"]


@pytest.mark.parametrize("history", [[["Hi", "Hello"]], [user("Hi"), bot("Hello")]])
def test_earlier_turns_come_before_the_prompt(check: Check, history: Any) -> None:
    (row,) = check([{**PAIR, "history": history, "system": "Be brief."}]).rows
    assert row["prompt"] == [SYSTEM, user("Hi"), bot("Hello"), user(ASKED)]


def test_a_system_prompt_that_is_there_already_is_not_repeated(check: Check) -> None:
    row = {"prompt": [SYSTEM, user(ASKED)], "chosen": [bot(GOOD)], "rejected": [bot(BAD)], "system": "Be brief."}
    assert check([row]).rows[0]["prompt"] == [SYSTEM, user(ASKED)]
    assert check([{**row, "system": "Be long."}]).codes["prompt-column-differs"] == 1


@pytest.mark.parametrize(
    ("verdicts", "winners"),
    [
        ([1, 2], [GOOD, BAD]),
        ([1.0, 2.0, None, float("nan")], [GOOD, BAD]),
        (["1.0", "2", ""], [GOOD, BAD]),
        (["left", "right"], [GOOD, BAD]),
        (["A>B", "B>>A", "A=B"], [GOOD, BAD]),
        (["model_a", "model_b", "both_bad"], [GOOD, BAD]),
        ([1.27, 1.73], [GOOD, BAD]),
    ],
)
def test_verdicts_are_read(check: Check, verdicts: list[Any], winners: list[str]) -> None:
    checked = check([{key: value for key, value in row.items() if value == value} for row in judged(*verdicts)])
    if any(verdict != verdict for verdict in verdicts):  # NaN is no JSON; a row without the column is malformed
        assert not checked.is_ready
        checked = check(judged(*verdicts[:-1]))
    assert [row["chosen"] for row in checked.rows] == [[bot(text)] for text in winners]


@pytest.mark.parametrize("late", [0, 400])
@pytest.mark.parametrize("verdicts", [(0, 1), (0, 1, 2), (0, 2), (1, 1), (2,), ("0", "1.0")])
def test_numbers_that_may_count_from_0_or_1_are_asked_about(check: Check, verdicts: Any, late: int) -> None:
    """Also where the first rows look clear."""
    rows = judged(*(verdicts[-1],) * late, *verdicts)
    checked = check(rows)
    assert checked.codes["verdict-unclear"] == 1
    advised = checked.detail.partition("values={")[2].partition("}")[0]
    values = dict(pair.replace('"', "").split(": ") for pair in advised.split(", "))
    assert check(rows, values=values).codes.get("verdict-unclear") is None


def test_values_tell_what_verdicts_mean(check: Check) -> None:
    checked = check(judged(0, 1, 2), values={"0": "first", "1": "second", "2": "tie"})
    assert [row["chosen"] for row in checked.rows] == [[bot(GOOD)], [bot(BAD)]]
    assert checked.codes == {"tie": 1, "reversed-pair": 1} or checked.codes == {"tie": 1}
    with pytest.raises(InvalidRequest):
        check(judged(0, 1), values={"0": "best"})


def test_the_same_verdict_in_all_rows_is_remarked_on(check: Check) -> None:
    assert check(judged("a", "a", "tie")).codes["one-verdict-only"] == 1


@pytest.mark.parametrize("name", ["context", "input", "weight", "margin", "instruction"])
def test_a_meaningful_column_that_is_not_used_is_named(check: Check, name: str) -> None:
    checked = check([PAIR, {**PAIR, "prompt": "Another?", name: "something"}])
    (issue,) = [issue for issue in checked.issues if issue["code"] == "meaningful-field-ignored"]
    assert f"'{name}'" in issue["detail"]
    assert "1 row has" in issue["detail"]
    assert issue["line"] == 2
    assert [row["prompt"] for row in checked.rows] == [ASKED, "Another?"]
    assert not check([PAIR, {**PAIR, "prompt": "Another?", name: "something"}], ignore=[name]).codes


def test_a_verdict_beside_a_complete_pair_is_asked_about(check: Check) -> None:
    rows = [{**PAIR, "winner": winner} for winner in ("model_a", "model_b")]
    checked = check(rows)
    assert "field-to-decide" in checked.codes
    assert 'ignore=["winner"]' in checked.detail
    assert check(rows, ignore=["winner"]).is_ready


def test_what_a_mapping_passes_over_decides(check: Check) -> None:
    rows = [{"q": ASKED, "a1": GOOD, "a2": BAD, "verdict": verdict} for verdict in ("left", "right")]
    columns = {"prompt": "q", "chosen": "a1", "rejected": "a2"}
    assert "field-to-decide" in check(rows, columns=columns).codes
    columns = {"prompt": "q", "response_1": "a1", "response_2": "a2", "preference": "verdict"}
    assert [row["chosen"] for row in check(rows, columns=columns).rows] == [[bot(GOOD)], [bot(BAD)]]


@pytest.mark.parametrize("names", [("score_chosen", "score_rejected"), ("chosen-rating", "rejected-rating")])
def test_scores_beside_a_pair_are_compared_with_it(check: Check, names: tuple[str, str]) -> None:
    chosen, rejected = names
    agreeing, equal = {**PAIR, chosen: 5, rejected: 2}, {**PAIR, "prompt": "Why?", chosen: 4, rejected: 4.0}
    assert (
        check([agreeing, equal]).codes == {"score-tie": 1, "repeated-response": 2}
        or "score-tie" in check([agreeing, equal]).codes
    )
    assert check([agreeing, equal], ties="drop").result.num_set_aside == 1
    reversed_pair = {**PAIR, chosen: 2, rejected: 5}
    assert check([agreeing, reversed_pair]).codes["scores-disagree"] == 1
    assert check([reversed_pair], ignore=list(names)).is_ready


def test_a_tie_by_status_is_one(check: Check) -> None:
    rows = [{**PAIR, "status": "valid"}, {**PAIR, "prompt": "Why?", "status": "tie"}]
    assert check(rows).codes["score-tie"] == 1
    assert len(check(rows, ties="drop").rows) == 1


def test_keys_of_messages_can_be_ignored(check: Check) -> None:
    row = {"messages": [user(ASKED), {**bot(GOOD), "weight": 0.5}]}
    assert not check([row], kind="demonstration").is_ready
    assert check([row], kind="demonstration", ignore=["messages[].weight"]).is_ready
