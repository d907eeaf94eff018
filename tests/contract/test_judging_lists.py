"""Lists of generations, judgements and pairs by what they are about, and the win rates of a job's policies."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from backends import BASE_MODEL, PROJECT, add_dataset, checkpoint, claim, submit
from judged_pairs import ask
from played_judging import judge_next

from core.domain.dataset_rows import DatasetKind
from core.domain.judging.generations import GenerationRequest
from core.services.backend import Backend
from core.services.datasets import answers
from core.services.generations import generations
from core.services.jobs.jobs import JobNotFound
from core.services.judgements import judgements, policy_rates
from core.services.judgements.judgements import JudgementView
from core.storage import keys

NUM_PROMPTS = 6


def store_answers(backend: Backend, models: Sequence[str], dataset_id: str) -> None:
    """Answers of models to prompts: each model's are longer than those of the one before, but for the first prompt."""
    rows = [
        {"prompt": f"Question {n}?", "response": f"{model} " + "word " * (place if n else 0), "model": model}
        for place, model in enumerate(models)
        for n in range(NUM_PROMPTS)
    ]
    text = "".join(json.dumps({"line": line, **row}) + "\n" for line, row in enumerate(rows, 1))
    backend.store.put_bytes(keys.dataset_rows(PROJECT, dataset_id), text.encode())
    add_dataset(backend, dataset_id, kind=DatasetKind.RESPONSES, num_rows=len(rows))


def judge_now(backend: Backend, first: str, second: str, dataset_id: str = "ds_1", **judge: Any) -> JudgementView:
    """A judgement by length, as a worker does it."""
    ask(backend, {"kind": "length"} | judge, dataset_id=dataset_id, models=[first, second])
    return judgements.get(backend, PROJECT, judge_next(backend))


def test_win_rates_of_a_job_are_by_the_step_of_each_policy(backend: Backend) -> None:
    add_dataset(backend, "ds_pairs")
    job_id, other_id = (submit(backend, dataset_id="ds_pairs").id for _ in range(2))
    held = claim(backend)
    assert held.job_id == job_id
    checkpoint_id = checkpoint(backend, held, 40)
    gone = f"{job_id}@ckpt_none"
    client_name = f"ft:{BASE_MODEL}:default::{job_id.removeprefix('job_')}:ckpt-step-20"
    client_sft = f"ft:{BASE_MODEL}:default::{job_id.removeprefix('job_')}@sft"
    models = [BASE_MODEL, f"{job_id}@sft", f"{job_id}@{checkpoint_id}", gone, client_name, job_id, client_sft, other_id]
    store_answers(backend, models, "ds_1")
    made = [judge_now(backend, model, BASE_MODEL) for model in models[1:]]
    turned = judge_now(backend, BASE_MODEL, f"{job_id}@{checkpoint_id}")
    own = judge_now(backend, job_id, f"{job_id}@sft", prefers="longer")

    def places(rates: list[policy_rates.PolicyRate]) -> list[tuple[str, str | None, int | None]]:
        return [(rate.policy, rate.stage, rate.step) for rate in rates]

    page = policy_rates.list_page(backend, PROJECT, job_id, limit=100)
    assert page.next_cursor is None
    assert places(page.data) == [
        (job_id, "dpo", None),
        (f"{job_id}@sft", "sft", None),
        (f"{job_id}@{checkpoint_id}", "dpo", 40),
        (client_sft, "sft", None),
        (job_id, "dpo", None),
        (client_name, "dpo", 20),
        (gone, None, None),
        (f"{job_id}@{checkpoint_id}", "dpo", 40),
        (f"{job_id}@sft", "sft", None),
    ]
    rates = {(rate.judgement_id, rate.policy): rate for rate in page.data}
    straight, back = rates[made[1].id, models[2]], rates[turned.id, models[2]]
    assert straight.win_rate == made[1].win_rate
    assert back.win_rate == pytest.approx(straight.win_rate), "the side on which it was judged does not matter"
    assert straight.against == back.against == BASE_MODEL
    assert straight.judge == {"kind": "length"}
    final, sft = rates[own.id, job_id], rates[own.id, f"{job_id}@sft"]
    assert final.win_rate is not None
    assert sft.win_rate is not None
    assert final.win_rate["value"] == pytest.approx(1 - sft.win_rate["value"])
    assert final.win_rate["high"] == pytest.approx(1 - sft.win_rate["low"])
    first = policy_rates.list_page(backend, PROJECT, job_id, limit=3)
    rest = policy_rates.list_page(backend, PROJECT, job_id, limit=3, cursor=first.next_cursor)
    assert places(first.data + rest.data) == places(page.data)[: len(first.data + rest.data)]
    assert [rate.policy for rate in policy_rates.list_page(backend, PROJECT, other_id).data] == [other_id]
    for project, wanted in (("another", job_id), (PROJECT, "job_none")):
        with pytest.raises(JobNotFound):
            policy_rates.list_page(backend, project, wanted)


def test_judgements_are_listed_by_dataset_and_by_job(backend: Backend) -> None:
    add_dataset(backend, "ds_pairs")
    job_id = submit(backend, dataset_id="ds_pairs").id
    lookalike = job_id.replace("_", "x")  # "_" is no letter of any kind in a pattern
    store_answers(backend, [BASE_MODEL, job_id, lookalike], "ds_1")
    store_answers(backend, [BASE_MODEL, f"{job_id}@sft"], "ds_10")
    of_job, of_other = judge_now(backend, BASE_MODEL, job_id), judge_now(backend, BASE_MODEL, lookalike)
    elsewhere = judge_now(backend, f"{job_id}@sft", BASE_MODEL, dataset_id="ds_10")

    def listed(**where: Any) -> list[str]:
        return [view.id for view in judgements.list_page(backend, PROJECT, **where).data]

    assert listed() == [elsewhere.id, of_other.id, of_job.id]
    assert listed(dataset_id="ds_1") == listed(dataset_id="ds_1@1") == [of_other.id, of_job.id]
    assert listed(dataset_id="ds_1@2") == listed(dataset_id="ds_") == []
    assert listed(job_id=job_id) == [elsewhere.id, of_job.id]
    assert listed(job_id=job_id, dataset_id="ds_1") == [of_job.id]


def test_generations_are_listed_by_dataset_and_by_job(backend: Backend) -> None:
    published = f"ft:{BASE_MODEL}:default::1"
    asked = {"prompts": ["Why?"]}
    made = generations.create(
        backend, PROJECT, GenerationRequest.model_validate({"models": [BASE_MODEL], **asked, "num_samples": 2})
    )
    assert [view.id for view in generations.list_page(backend, PROJECT).data] == [made.id]
    assert generations.list_page(backend, PROJECT, job_id="job_1").data == []
    assert generations.list_page(backend, PROJECT, dataset_id="ds_1").data == []
    names = {"job_1": 1, "job_1@ckpt_1": 1, "job_1@sft": 1, "job_10": 0, f"{published}0@sft": 0}
    names |= dict.fromkeys([published, f"{published}@sft", f"{published}:ckpt-step-3"], 1)
    for name, number in names.items():
        rename(backend, made.id, [BASE_MODEL, name])
        assert len(generations.list_page(backend, PROJECT, job_id="job_1").data) == number, name


def rename(backend: Backend, generation_id: str, models: list[str]) -> None:
    """Change the models of a generation, as if it had been asked for with them."""

    def work(session: Any) -> None:
        row = generations.lock(session, PROJECT, generation_id)
        row.requested = {**row.requested, "models": models}

    backend.database.write(work)


def test_pairs_are_listed_by_verdict_and_by_text(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    store_answers(backend, ["short", "much longer"], "ds_1")
    found = judge_now(backend, "short", "much longer", kind="regex", pattern="word")

    def positions(**where: Any) -> list[int]:
        return [pair.position for pair in judgements.list_pairs(backend, PROJECT, found.id, **where).data]

    by_verdict = {state: positions(state=state) for state in ("first", "second", "tie", "failed", "open")}
    assert by_verdict == {"first": [], "second": [2, 3, 4, 5, 6], "tie": [1], "failed": [], "open": []}
    assert positions(search="QUESTION 3?") == [4]
    assert positions(search="nothing like it") == []
    assert positions(search="word", state="second", limit=2) == [2, 3]
    page = judgements.list_pairs(backend, PROJECT, found.id, search="word", limit=2)
    following = judgements.list_pairs(backend, PROJECT, found.id, search="word", limit=9, cursor=page.next_cursor)
    assert [pair.position for pair in page.data + following.data] == [2, 3, 4, 5, 6]
    assert following.next_cursor is None
    monkeypatch.setattr(judgements, "MAX_SEARCHED", 2)
    first = judgements.list_pairs(backend, PROJECT, found.id, search="Question 5?")
    assert (first.data, first.next_cursor is not None) == ([], True), "the next page goes on behind them"
    second = judgements.list_pairs(backend, PROJECT, found.id, search="Question 5?", cursor=first.next_cursor)
    third = judgements.list_pairs(backend, PROJECT, found.id, search="Question 5?", cursor=second.next_cursor)
    assert [pair.position for pair in third.data] == [6]


def test_answers_are_listed_under_their_prompts(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    store_answers(backend, ["a", "b", "a"], "ds_1")  # the second sample of a stands behind the answers of b

    def listed(**where: Any) -> list[tuple[int, list[tuple[int, str, str]]]]:
        return [
            (item["position"], [(one["line"], one["model"], one["response"].strip()) for one in item["answers"]])
            for item in answers.list_answers(backend, PROJECT, "ds_1", **where).data
        ]

    whole = listed()
    assert [position for position, _ in whole] == [1, 2, 3, 4, 5, 6]
    assert whole[1] == (2, [(2, "a", "a"), (8, "b", "b word"), (14, "a", "a word word")])
    first = answers.list_answers(backend, PROJECT, "ds_1", limit=4)
    assert [item["position"] for item in first.data] == [1, 2, 3, 4]
    rest = answers.list_answers(backend, PROJECT, "ds_1", limit=4, cursor=first.next_cursor)
    assert [item["position"] for item in rest.data] == [5, 6]
    assert rest.next_cursor is None
    assert listed(search="QUESTION 4?") == whole[4:5], "all answers to it, though they do not hold the text"
    assert listed(search="b word") == whole[1:]
    assert listed(search="b word", limit=1) == whole[1:2]
    assert listed(search="nothing like it") == []
    monkeypatch.setattr(answers, "MAX_PAGE_BYTES", 500)
    small = answers.list_answers(backend, PROJECT, "ds_1")
    assert 1 <= len(small.data) < 6
    assert all(len(item["answers"]) == 3 for item in small.data), "no answer is cut off by the size of a page"
    following = answers.list_answers(backend, PROJECT, "ds_1", cursor=small.next_cursor)
    assert following.data[0]["position"] == len(small.data) + 1
    monkeypatch.setattr(answers, "MAX_PAGE_BYTES", 1)
    assert [item["position"] for item in answers.list_answers(backend, PROJECT, "ds_1").data] == [1]
    add_dataset(backend, "ds_pairs")
    with pytest.raises(answers.NotResponses, match="preference"):
        answers.list_answers(backend, PROJECT, "ds_pairs")
