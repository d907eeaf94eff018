"""Judgements by rules, rewards and a language model: no verdict is made up, and every fault is counted."""

import hashlib
import json
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backends import PROJECT, add_dataset, submit
from judged_pairs import SECONDS, ask, judged, judging_lane
from published_models import publish
from sqlalchemy import text
from stand_in_judge import Question, Reply, StandInJudge, stand_in_judge, verdict
from toy_jobs import ServiceProcess, wait_for

from core.database.repositories import owned
from core.database.tables.judgements import Judgement
from core.datasets.check.check_process import CheckCrashed
from core.domain.arenas.arenas import ArenaRequest
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import InvalidRequest
from core.domain.judging.judgements import JudgementRequest
from core.services.arenas import arenas, voting
from core.services.backend import Backend
from core.services.datasets import contents, datasets, intake
from core.services.judgements import judgements, judging
from core.services.judgements.judgements import (
    JudgementNotCancellable,
    JudgementNotDeletable,
    JudgementNotFound,
    JudgementView,
)
from core.services.judgements.language_model import MAX_TRIES, JudgeNotConfigured
from core.services.requests import requests, scores
from core.storage import keys
from worker.light import judging as lane_of_judging

ONE_SENTENCE = {"kind": "regex", "pattern": r"^[^.!?]+[.!?]$"}


@pytest.fixture
def backend(backend: Backend) -> Backend:
    """Leases outlive a busy machine."""
    return replace(backend, settings=backend.settings.model_copy(update={"lease_seconds": 30.0}))


def store_rows(backend: Backend, rows: Sequence[dict[str, Any]], kind: DatasetKind, dataset_id: str = "ds_1") -> None:
    text = "".join(json.dumps({"line": line, **row}) + "\n" for line, row in enumerate(rows, 1))
    backend.store.put_bytes(keys.dataset_rows(PROJECT, dataset_id), text.encode())
    add_dataset(backend, dataset_id, kind=kind, num_rows=len(rows))


def responses(number: int, *, samples: int = 1) -> list[dict[str, Any]]:
    """Of two models; the first says one sentence on even prompts, the second on every third."""
    return [
        {
            "prompt": f"Question {n}?",
            "response": f"{model} says {n} {sample}." + ("" if n % every == 0 else " And more."),
            "model": model,
        }
        for model, every in (("new", 2), ("old", 3))
        for n in range(number)
        for sample in range(samples)
    ]


def rows_of(backend: Backend, dataset_id: str | None) -> list[dict[str, Any]]:
    assert dataset_id is not None
    text = b"".join(contents.original(backend, PROJECT, dataset_id).chunks)
    return [json.loads(line) for line in text.splitlines()]


def judged_by(backend: Backend, server: StandInJudge, **settings: Any) -> Backend:
    """The backend with that server as the operator's model."""
    own = {"judge_url": server.url, "judge_model": "stand-in", "judge_allowed_hosts": "127.0.0.1"}
    chosen = own | {"judge_timeout_seconds": 20.0} | settings
    return replace(backend, settings=backend.settings.model_copy(update=chosen))


def prefers_new(question: Question) -> Reply:
    return verdict("A" if "new" in question.a else "B", confidence=0.9)


def test_a_rule_gives_a_win_rate_and_the_pairs_that_it_decides(backend: Backend) -> None:
    store_rows(backend, responses(12), DatasetKind.RESPONSES)
    found = judged(backend, ONE_SENTENCE, models=["new", "old"], name="one sentence")
    # of 12: 6 are even, 4 are threefold, 2 both
    wins, losses = 4, 2
    assert (found.num_pairs, found.num_judged, found.num_failed, found.num_ties) == (12, 12, 0, 6)
    assert found.win_rate is not None
    assert found.win_rate["value"] == pytest.approx((wins + 6 / 2) / 12)
    assert found.win_rate["low"] < found.win_rate["value"] < found.win_rate["high"]
    assert found.length_controlled is not None
    assert found.label_agreement is None
    rows = rows_of(backend, found.dataset_id)
    assert len(rows) == wins + losses
    assert all("And more" in row["rejected"] and "And more" not in row["chosen"] for row in rows)
    told = rows[0]["judgement"]
    assert (told["judge"], told["confidence"], told["chosen_model"]) == (ONE_SENTENCE, 1.0, "new")
    dataset = datasets.get(backend, PROJECT, str(found.dataset_id))
    assert (dataset.kind, dataset.name, dataset.num_accepted) == ("preference", "one sentence", 6)
    assert dataset.made_from is not None
    assert dataset.made_from["how"] == "judgement"


def test_the_order_of_the_models_turns_the_win_rate_round(backend: Backend) -> None:
    store_rows(backend, responses(12), DatasetKind.RESPONSES)
    one, other = (judged(backend, ONE_SENTENCE, models=models) for models in (["new", "old"], ["old", "new"]))
    assert one.win_rate is not None
    assert other.win_rate is not None
    assert one.win_rate["value"] == pytest.approx(1 - other.win_rate["value"])


def test_a_check_of_the_dataset_that_somebody_kills_is_made_again(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, kills = intake.check_in_child, iter(range(2))

    def die_twice(*args: Any, **kwargs: Any) -> Any:
        if next(kills, None) is not None:
            raise CheckCrashed("The check died.")
        return check(*args, **kwargs)

    monkeypatch.setattr(intake, "check_in_child", die_twice)
    store_rows(backend, responses(12), DatasetKind.RESPONSES)
    assert len(rows_of(backend, judged(backend, ONE_SENTENCE, models=["new", "old"]).dataset_id)) == 6


@pytest.mark.parametrize(
    ("judge", "better"),
    [
        ({"kind": "length"}, "old 1"),
        ({"kind": "length", "prefers": "longer"}, '{"a": "much longer"}'),
        ({"kind": "exact_match", "text": " old 1 "}, "old 1"),
        ({"kind": "json_schema", "json_schema": {"required": ["a"]}}, '{"a": "much longer"}'),
        ({"kind": "regex", "pattern": "^old"}, "old 1"),
    ],
)
def test_each_rule(backend: Backend, judge: dict[str, Any], better: str) -> None:
    rows = [
        {"prompt": "Why?", "response": '{"a": "much longer"}', "model": "new"},
        {"prompt": "Why?", "response": "old 1", "model": "old"},
    ]
    store_rows(backend, rows, DatasetKind.RESPONSES)
    assert rows_of(backend, judged(backend, judge).dataset_id)[0]["chosen"] == better


@pytest.mark.parametrize("prefers", ["shorter", "longer"])
def test_an_answer_that_says_nothing_never_wins_by_its_length(backend: Backend, prefers: str) -> None:
    said = {"new": ["", " \n", "Yes.", ""], "old": ["A long answer.", "Yes.", "  ", "\n"]}
    rows = [
        {"prompt": f"Question {n}?", "response": answer, "model": model}
        for model, answers in said.items()
        for n, answer in enumerate(answers)
    ]
    store_rows(backend, rows, DatasetKind.RESPONSES)
    found = judged(backend, {"kind": "length", "prefers": prefers})
    pairs = judgements.list_pairs(backend, PROJECT, found.id).data
    assert [pair.verdict for pair in pairs] == ["second", "second", "first", "tie"]
    assert {pair.detail["reason"] for pair in pairs} == {"An answer that says nothing never wins by its length."}
    assert found.dataset_id is None, "an empty answer teaches nothing"


def test_a_pattern_that_other_engines_choke_on_takes_no_time(backend: Backend) -> None:
    rows = [{"prompt": "Why?", "response": "a" * 50_000 + end, "model": end} for end in "bc"]
    store_rows(backend, rows, DatasetKind.RESPONSES)
    found = judged(backend, {"kind": "regex", "pattern": "^(a+)+b$"})
    assert found.win_rate is not None
    assert found.win_rate["value"] == 1


@pytest.mark.parametrize(
    ("judge", "pointer", "told"),
    [
        ({"kind": "regex", "pattern": "(?=a)b"}, "/judge/pattern", "look-around"),
        ({"kind": "regex", "pattern": "("}, "/judge/pattern", "unclosed group"),
        ({"kind": "json_schema", "json_schema": {"type": "nope"}}, "/judge/json_schema", "nope"),
        ({"kind": "json_schema", "json_schema": {"$ref": "http://127.0.0.1:9/x"}}, "/judge/json_schema", "disabled"),
        ({"kind": "reward", "job_id": "job_none"}, "/judge/job_id", "job_none"),
    ],
)
def test_a_judge_that_cannot_judge_is_refused(backend: Backend, judge: dict[str, Any], pointer: str, told: str) -> None:
    store_rows(backend, responses(3), DatasetKind.RESPONSES)
    with pytest.raises(InvalidRequest, match=told) as refused:
        ask(backend, judge)
    assert [error.pointer for error in refused.value.errors] == [pointer]


def test_settings_of_another_kind_of_judge_are_refused() -> None:
    body = {"dataset_id": "ds_1", "judge": {"kind": "length", "pattern": "x"}}
    with pytest.raises(ValueError, match="not a setting of a judge of kind length"):
        JudgementRequest.model_validate(body)
    with pytest.raises(ValueError, match="needs pattern"):
        JudgementRequest.model_validate({"dataset_id": "ds_1", "judge": {"kind": "regex"}})


def test_datasets_without_two_answers_are_refused(backend: Backend) -> None:
    store_rows(backend, responses(3)[:3], DatasetKind.RESPONSES)
    with pytest.raises(InvalidRequest, match="no two answers to one prompt"):
        ask(backend, ONE_SENTENCE)
    with pytest.raises(InvalidRequest, match="no answer of old; it has those of new"):
        ask(backend, ONE_SENTENCE, models=["new", "old"])
    with pytest.raises(InvalidRequest, match="There is no dataset"):
        ask(backend, ONE_SENTENCE, dataset_id="ds_none")
    store_rows(backend, [{"prompt": "p", "response": "r"}], DatasetKind.DEMONSTRATION, "ds_2")
    with pytest.raises(InvalidRequest, match="of kind demonstration"):
        ask(backend, ONE_SENTENCE, dataset_id="ds_2")


def test_a_model_against_itself_is_at_a_half_in_seventeen_of_twenty_seeds(backend: Backend) -> None:
    """Pairs of its own samples, by a rule that answers keep to by chance."""
    num_within = 0
    for seed in range(20):
        rows = [
            {
                "prompt": f"Question {n}?",
                "response": "One." + " And more." * (hashlib.sha256(f"{seed} {n} {k}".encode()).digest()[0] % 2),
                "model": "new",
            }
            for n in range(16)
            for k in range(4)
        ]
        store_rows(backend, rows, DatasetKind.RESPONSES, f"ds_{seed}")
        asked = ask(backend, ONE_SENTENCE, dataset_id=f"ds_{seed}")
        rate = play(backend, asked)["win_rate"]
        num_within += rate["low"] <= 0.5 <= rate["high"]
    assert num_within >= 17


def play(backend: Backend, asked: JudgementView) -> dict[str, Any]:
    """What a lane does, in this thread, without the dataset."""
    claimed = judging.claim(backend, 60)
    assert claimed is not None
    assert claimed.lease.id == asked.id
    rule = lane_of_judging.RuleJudge(claimed)
    while pairs := judging.open_pairs(backend, claimed, 500):
        assert judging.record(backend, claimed, rule.judge(pairs))
    row = backend.database.read(lambda session: owned.find(session, Judgement, PROJECT, asked.id))
    assert row is not None
    requests.fail(backend, claimed.lease, "It was played.")
    return judging.measure(backend, row)


def test_a_file_s_own_labels_are_compared_and_two_judges_too(backend: Backend) -> None:
    rows = [
        {"prompt": f"Q {n}?", "chosen": "One." if n % 4 else "One. Two.", "rejected": "One! Two." if n % 4 else "One!"}
        for n in range(20)
    ]
    store_rows(backend, rows, DatasetKind.PREFERENCE)
    regex, shorter = judged(backend, ONE_SENTENCE), judged(backend, {"kind": "length", "prefers": "longer"})
    assert regex.models == ["chosen", "rejected"]
    assert regex.label_agreement is not None
    assert (regex.label_agreement["num_pairs"], regex.label_agreement["value"]) == (20, 0.75)
    found = judgements.compare(backend, PROJECT, regex.id, shorter.id)
    assert (found.num_pairs, found.value) == (20, 0.0)
    assert judgements.compare(backend, PROJECT, regex.id, regex.id).kappa == 1
    with pytest.raises(JudgementNotFound):
        judgements.compare(backend, PROJECT, regex.id, "judge_none")


def test_a_language_model_sees_both_orders_and_its_reasons_are_kept(backend: Backend) -> None:
    store_rows(backend, responses(6), DatasetKind.RESPONSES)
    with stand_in_judge(prefers_new) as server:
        found = judged(judged_by(backend, server), {"kind": "model", "criteria": "Be kind."})
    assert found.win_rate is not None
    assert found.win_rate["value"] == 1
    assert (found.num_requests, found.num_cached, found.faults) == (12, 0, {})
    assert found.position == {"num_pairs": 6, "num_consistent": 6, "first_shown_share": 0.5}
    told = rows_of(backend, found.dataset_id)[0]["judgement"]
    assert (told["confidence"], told["reason"], told["reason_swapped"]) == (0.9, "A it is.", "B it is.")
    shown = {(question.a.split()[0], question.b.split()[0]) for question in server.questions}
    assert shown == {("new", "old"), ("old", "new")}


def test_a_language_model_sees_tools_and_documents_of_a_prompt(backend: Backend) -> None:
    """And calls of tools; the first version of the question leaves all of them out."""
    call = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Rome"}}}
    prompt = [
        {"role": "user", "content": "Is it warm in Rome?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "31 °C"},
    ]
    context = {"tools": [{"type": "function", "function": {"name": "weather"}}], "documents": [{"text": "A map."}]}
    rows = [
        {"prompt": prompt, "response": [{"role": "assistant", "content": f"{model}: yes."}], "model": model, **context}
        for model in ("new", "old")
    ]
    store_rows(backend, rows, DatasetKind.RESPONSES)
    with stand_in_judge(prefers_new) as server:
        newest = judged(judged_by(backend, server), {"kind": "model"})
        asked = server.questions[0]
        first = judged(judged_by(backend, server), {"kind": "model", "template": "pairwise-1"})
        plain = server.questions[-1]
    assert (newest.num_requests, first.num_requests, first.num_cached) == (2, 2, 0)
    assert asked.before.startswith('<tools>\n[{"type": "function", "function": {"name": "weather"}}]\n</tools>')
    assert '<documents>\n[{"text": "A map."}]\n</documents>' in asked.before
    assert 'assistant: \n{"tool_calls": [{"type": "function"' in asked.prompt
    assert "tool: 31 °C" in asked.prompt
    assert (plain.before, "tool_calls" in plain.prompt) == ("", False)


def test_what_was_asked_before_is_not_asked_again(backend: Backend) -> None:
    store_rows(backend, responses(6), DatasetKind.RESPONSES)
    with stand_in_judge(prefers_new) as server:
        first, again = (judged(judged_by(backend, server), {"kind": "model"}) for _ in range(2))
        assert (first.num_requests, again.num_requests, again.num_cached) == (12, 0, 12)
        assert again.win_rate == first.win_rate
        other = judged(judged_by(backend, server), {"kind": "model", "criteria": "Something else."})
        assert other.num_requests == 12


def test_every_fault_of_a_judge_is_counted_and_no_verdict_is_made_up(backend: Backend) -> None:
    """One that errs, stalls, answers nonsense, refuses, and changes its mind with the order."""
    rows = responses(12)

    def decide(question: Question) -> Reply:
        number = int(question.prompt.removeprefix("Question ").removesuffix("?"))
        match number:
            case 0:
                return 500  # always
            case 1:
                return 503 if question.number == 0 else prefers_new(question)
            case 2:
                return None  # stalls
            case 3:
                return "I like both of them!"
            case 4:
                return json.dumps({"verdict": "C", "reason": "?"})
            case 5:
                return 401
            case 6 | 7 | 8:
                return verdict("A")  # whatever stands first
            case 9:
                return verdict("tie")
            case 10:
                return f"```json\n{verdict('A' if 'new' in question.a else 'B')}\n```"
        return prefers_new(question)

    store_rows(backend, rows, DatasetKind.RESPONSES)
    with stand_in_judge(decide) as server:
        found = judged(judged_by(backend, server, judge_timeout_seconds=0.5), {"kind": "model"})
        assert found.num_requests == len(server.questions)
    pairs = judgements.list_pairs(backend, PROJECT, found.id, limit=100).data
    verdicts = [pair.verdict for pair in pairs]
    assert verdicts == [None, "first", None, None, None, None, "tie", "tie", "tie", "tie", "first", "first"]
    assert found.num_failed == 5
    assert found.faults == {
        "http_error": 2 * MAX_TRIES + 2 + 2,  # always; the first of two orders each; not repeated
        "timed_out": 2 * MAX_TRIES,
        "nonsense": 4 * MAX_TRIES,
    }
    assert found.position == {"num_pairs": 7, "num_consistent": 4, "first_shown_share": 10 / 14}
    assert found.win_rate is not None
    assert found.win_rate["value"] == pytest.approx((3 + 4 / 2) / 7)
    assert [pairs[place].detail["fault"] for place in (0, 2, 3, 4, 5)] == [
        "http_error", "timed_out", "nonsense", "nonsense", "http_error",
    ]  # fmt: skip
    assert pairs[6].confidence == 0.5


def test_a_budget_is_kept_and_pairs_beyond_it_have_no_verdict(backend: Backend) -> None:
    store_rows(backend, responses(12), DatasetKind.RESPONSES)
    with stand_in_judge(prefers_new) as server:
        found = judged(judged_by(backend, server), {"kind": "model", "max_requests": 7})
        assert len(server.questions) == found.num_requests == 7
    assert found.faults == {"budget": 24 - 7}
    assert 0 < found.num_judged - found.num_failed <= 3


def test_a_budget_is_kept_also_where_a_process_dies_with_requests_under_way(backend: Backend) -> None:
    store_rows(backend, responses(12), DatasetKind.RESPONSES)
    asked = ask_model(backend, max_requests=30)
    gone = judging.claim(backend, 60)
    assert gone is not None
    assert judging.reserve(backend, gone, 24, 30) == 24
    requests.give_back(backend, gone.lease, counts=True)
    assert judging.reserve(backend, gone, 1, 30) is None
    with stand_in_judge(prefers_new) as server, judging_lane(judged_by(backend, server)):
        wait_for(lambda: judgements.get(backend, PROJECT, asked.id).finished_at, "its end", SECONDS)
        assert len(server.questions) == 6
    found = judgements.get(backend, PROJECT, asked.id)
    assert (found.num_requests, found.num_judged) == (30, 12)


def test_whatever_is_killed_every_pair_is_judged_once_and_the_dataset_is_the_same(
    backend: Backend, tmp_path: Path
) -> None:
    store_rows(backend, responses(12), DatasetKind.RESPONSES)
    with stand_in_judge(prefers_new) as server:
        judging_backend = judged_by(backend, server)
        undisturbed = judged(judging_backend, {"kind": "model", "criteria": "Undisturbed."})
        asked = ask(judging_backend, {"kind": "model", "criteria": "Killed."})
        own = {name: getattr(judging_backend.settings, f"judge_{name}") for name in ("url", "model", "allowed_hosts")}
        settings = {f"judge_{name}": value for name, value in own.items()} | {"lease_seconds": 30.0}
        for point in ("judgement.reserved", "judgement.recorded"):
            fault = {"failpoints": f"{point}=kill", "broker_url": "none", "device": "cpu"}
            with ServiceProcess("toy_worker.py", backend, tmp_path / "log", **settings, **fault) as worker:
                assert worker.wait() == -signal.SIGKILL
            end_leases(backend)
        with judging_lane(judging_backend):
            wait_for(lambda: judgements.get(backend, PROJECT, asked.id).finished_at, "its end", SECONDS)
    found = judgements.get(backend, PROJECT, asked.id)
    assert (found.status, found.num_judged, found.win_rate) == ("succeeded", 12, undisturbed.win_rate)
    pairs = [
        [(row["prompt"], row["chosen"]) for row in rows_of(backend, one.dataset_id)] for one in (undisturbed, found)
    ]
    assert pairs[0] == pairs[1]
    assert found.num_requests >= undisturbed.num_requests


def end_leases(backend: Backend) -> None:
    statement = text("UPDATE judgements SET lease_expires_at = created_at WHERE lease_token IS NOT NULL")
    backend.database.write(lambda session: session.execute(statement))


def ask_model(backend: Backend, **judge: Any) -> JudgementView:
    with stand_in_judge(prefers_new) as server:
        return ask(judged_by(backend, server), {"kind": "model", **judge})


def test_a_planted_judge_is_found_at_its_value(backend: Backend) -> None:
    """It finds the first model better on 30 of 50 prompts, and does not look at the order."""

    def decide(question: Question) -> Reply:
        is_new = int(question.prompt.removeprefix("Question ").removesuffix("?")) % 10 < 6
        return verdict("A" if ("new" in question.a) is is_new else "B")

    store_rows(backend, responses(50), DatasetKind.RESPONSES)
    with stand_in_judge(decide) as server:
        rate = judged(judged_by(backend, server), {"kind": "model"}).win_rate
    assert rate is not None
    assert rate["value"] == pytest.approx(0.6)
    assert 0.43 < rate["low"] < 0.6 < rate["high"] < 0.75


def test_the_operator_s_key_goes_to_the_judge_and_is_told_nowhere(backend: Backend) -> None:
    store_rows(backend, responses(2), DatasetKind.RESPONSES)
    with pytest.raises(JudgeNotConfigured):
        ask(backend, {"kind": "model"})
    secret = backend.settings.model_validate({**backend.settings.model_dump(), "judge_api_key": "sk-stand-in"})
    with stand_in_judge(prefers_new) as server:
        found = judged(judged_by(replace(backend, settings=secret), server), {"kind": "model"})
    assert {question.key for question in server.questions} == {"Bearer sk-stand-in"}
    assert "sk-stand-in" not in repr(found)


def test_a_judge_at_an_address_that_is_not_listed_is_not_reached(backend: Backend) -> None:
    store_rows(backend, responses(2), DatasetKind.RESPONSES)
    with stand_in_judge(prefers_new) as server:
        found = judged(judged_by(backend, server, judge_allowed_hosts=""), {"kind": "model"})
        assert server.questions == []
    assert (found.num_failed, found.faults) == (2, {"unreachable": 4})
    assert (found.win_rate, found.dataset_id) == (None, None)


def test_a_job_that_gives_no_rewards_is_no_judge(backend: Backend) -> None:
    add_dataset(backend, "ds_0")
    store_rows(backend, responses(3), DatasetKind.RESPONSES)
    for fields, told in (
        ({"sft": "skip"}, "is queued and has published nothing to score with"),
        ({"method": "supervised"}, "is a supervised job, whose policy gives no rewards"),
    ):
        job_id = submit(backend, dataset_id="ds_0", **fields).id
        with pytest.raises(InvalidRequest, match=f"/judge/job_id: {job_id} {told}"):
            ask(backend, {"kind": "reward", "job_id": job_id})


def test_rewards_of_a_job_judge(backend: Backend, tmp_path: Path) -> None:
    add_dataset(backend, "ds_0")
    job_id = submit(backend, dataset_id="ds_0", sft="skip").id
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text("{}")
    publish(backend, job_id, tmp_path / "policy")
    store_rows(backend, responses(4), DatasetKind.RESPONSES)
    results: list[dict[str, Any]] = [
        {"chosen_reward": 1.0, "rejected_reward": -1.0, "margin": 2.0, "preference_probability": 0.88},
        {"chosen_reward": -1.0, "rejected_reward": 1.0, "margin": -2.0, "preference_probability": 0.12},
        {"chosen_reward": 1.0, "rejected_reward": 1.0, "margin": 0.0, "preference_probability": 0.5},
        {"error": "It is too long."},
    ]
    done = threading.Thread(target=score_once, args=(backend, results))
    done.start()
    found = judged(backend, {"kind": "reward", "job_id": job_id})
    done.join()
    pairs = judgements.list_pairs(backend, PROJECT, found.id).data
    assert [(pair.verdict, pair.confidence) for pair in pairs] == [
        ("first", 0.88), ("second", 0.88), ("tie", 0.5), (None, None),
    ]  # fmt: skip
    assert found.faults == {"not_scored": 1}


def test_people_judge_by_their_votes_in_an_arena(backend: Backend) -> None:
    """Pairs that nobody has voted on have no verdict; people and a rule are compared."""
    pairs = [{"prompt": f"Q {n}?", "chosen": f"One {n}.", "rejected": f"One {n}. Two."} for n in range(5)]
    store_rows(backend, pairs, DatasetKind.PREFERENCE)
    made = arenas.create(backend, PROJECT, ArenaRequest.model_validate({"dataset_id": "ds_1"}))
    for number, held in enumerate(voting.lease(backend, PROJECT, made.id, "ann", 4)):
        wanted = "tie" if number == 3 else "left" if (held.left == f"One {number}.") is (number > 0) else "right"
        voting.vote(backend, PROJECT, made.id, voting.Vote(pair_id=held.id, voter="ann", choice=wanted))
    found = judged(backend, {"kind": "arena", "arena_id": made.id})
    verdicts = [pair.verdict for pair in judgements.list_pairs(backend, PROJECT, found.id).data]
    assert verdicts == ["second", "first", "first", "tie", None]
    assert (found.num_failed, found.faults) == (1, {"not_voted": 1})
    rule = judged(backend, ONE_SENTENCE)
    agreed = judgements.compare(backend, PROJECT, found.id, rule.id)
    assert (agreed.num_pairs, agreed.value) == (4, 0.5)
    with pytest.raises(InvalidRequest, match="arena_none"):
        ask(backend, {"kind": "arena", "arena_id": "arena_none"})


def score_once(backend: Backend, results: list[dict[str, Any]]) -> None:
    """What the scoring lane does."""
    found: list[Any] = []

    def claim() -> bool:
        claimed = scores.claim(backend, 60)
        found.extend([claimed] if claimed else [])
        return claimed is not None

    wait_for(claim, "the request for scores", SECONDS)
    scores.finish(backend, found[0], results)


def test_a_cancelled_judgement_stops_and_its_verdicts_stay(backend: Backend) -> None:
    store_rows(backend, responses(12), DatasetKind.RESPONSES)
    asked = ask(backend, ONE_SENTENCE)
    claimed = judging.claim(backend, 60)
    assert claimed is not None
    pairs = judging.open_pairs(backend, claimed, 5)
    batch = lane_of_judging.RuleJudge(claimed).judge(pairs)
    for _ in range(2):  # recorded again counts once
        assert judging.record(backend, claimed, batch)
    with pytest.raises(JudgementNotDeletable):
        judgements.delete(backend, PROJECT, asked.id)
    view, is_changed = judgements.cancel(backend, PROJECT, asked.id)
    assert (view.status, view.num_judged, is_changed) == ("cancelled", 5, True)
    assert judgements.cancel(backend, PROJECT, asked.id)[1] is False
    assert not judging.record(backend, claimed, batch)
    judging.finish(backend, claimed)
    assert judgements.get(backend, PROJECT, asked.id).dataset_id is None
    assert [found.id for found in datasets.list_page(backend, PROJECT).data] == ["ds_1"]
    judgements.delete(backend, PROJECT, asked.id)
    with pytest.raises(JudgementNotFound):
        judgements.get(backend, PROJECT, asked.id)


def test_pages_and_an_ended_one(backend: Backend) -> None:
    store_rows(backend, responses(12), DatasetKind.RESPONSES)
    found = judged(backend, ONE_SENTENCE, num_pairs=7, seed=2)
    with pytest.raises(JudgementNotCancellable):
        judgements.cancel(backend, PROJECT, found.id)
    page = judgements.list_pairs(backend, PROJECT, found.id, limit=4)
    rest = judgements.list_pairs(backend, PROJECT, found.id, limit=4, cursor=page.next_cursor)
    assert [pair.position for pair in [*page.data, *rest.data]] == list(range(1, 8))
    assert rest.next_cursor is None
    assert [view.id for view in judgements.list_page(backend, PROJECT).data] == [found.id]
