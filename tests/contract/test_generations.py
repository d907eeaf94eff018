"""Generations in the database: created, claimed, done part by part by whoever is there, and made a dataset."""

import json
from typing import Any

import pytest
from backends import BASE_MODEL, PROJECT, add_dataset, submit

from core.database.repositories import generations as rows
from core.datasets.splitting import split_validation
from core.domain.errors import InvalidRequest
from core.domain.judging.generations import PART_ANSWERS, GenerationRequest, Part, answer_seed, plan_parts
from core.services.backend import Backend
from core.services.datasets import contents, datasets, intake
from core.services.generations import generations, parts
from core.services.generations.generations import (
    GenerationNotCancellable,
    GenerationNotDeletable,
    GenerationNotFound,
    TooManyGenerations,
)
from core.services.generations.parts import GenerationClaim
from core.services.requests import requests
from core.storage import keys

PROMPTS = [f"Question {n}?" for n in range(50)]


def ask(backend: Backend, **fields: Any) -> generations.GenerationView:
    body: dict[str, Any] = {"models": [BASE_MODEL], "prompts": PROMPTS, "num_samples": 3} | fields
    return generations.create(backend, PROJECT, GenerationRequest.model_validate(body))


def claim(backend: Backend) -> GenerationClaim:
    found = parts.claim(backend, 60)
    assert found is not None
    return found


def played(claim: GenerationClaim, part: Part) -> list[dict[str, Any]]:
    """Answers that depend on prompt and seed, as a model's do."""
    return [
        {
            "text": f"{claim.prompts[prompt]['prompt']} {answer_seed(claim.sampling.seed, prompt, sample) % 1000}",
            "finish_reason": "stop",
            "num_tokens": 3,
            "logprob": -1.5,
        }
        for prompt, sample in part.places(claim.num_samples)
    ]


def answer(backend: Backend, claimed: GenerationClaim, *, most: int | None = None) -> None:
    left = [part for part in claimed.parts if part.number not in claimed.done]
    for part in left[:most]:
        assert parts.record(backend, claimed, part, played(claimed, part))


def content(backend: Backend, dataset_id: str | None) -> bytes:
    assert dataset_id is not None
    return b"".join(contents.original(backend, PROJECT, dataset_id).chunks)


def test_parts_cover_all_answers_once_and_none_is_of_two_models() -> None:
    plan = plan_parts(2, 150, PART_ANSWERS)
    assert [part.number for part in plan] == list(range(6))
    for model in (0, 1):
        places = [place for part in plan if part.model == model for place in part.places(3)]
        assert places == [(prompt, sample) for prompt in range(50) for sample in range(3)]
    assert max(part.count for part in plan) == PART_ANSWERS
    seeds = {answer_seed(seed, prompt, sample) for seed in (0, 1) for prompt in range(50) for sample in range(3)}
    assert len(seeds) == 300


def test_a_generation_becomes_a_dataset_of_responses(backend: Backend) -> None:
    asked = ask(backend, name="mine", metadata={"team": "a"}, sampling={"seed": 7})
    assert (asked.status, asked.num_prompts, asked.num_answers, asked.dataset_id) == ("queued", 50, 150, None)
    claimed = claim(backend)
    assert parts.claim(backend, 60) is None
    answer(backend, claimed)
    parts.finish(backend, claimed)
    done = generations.get(backend, PROJECT, asked.id)
    assert (done.status, done.num_done, done.num_failed, done.num_tokens) == ("succeeded", 150, 0, 450)
    assert done.dataset_id is not None
    dataset = datasets.get(backend, PROJECT, done.dataset_id)
    assert (dataset.kind, dataset.name, dataset.num_accepted) == ("responses", "mine", 150)
    assert dataset.made_from == {
        "how": "generation", "datasets": {}, "generation_id": asked.id, "models": [BASE_MODEL],
    }  # fmt: skip
    first = datasets.list_rows(backend, PROJECT, done.dataset_id).data[0]
    assert first["model"] == BASE_MODEL
    assert "generation" not in first
    lines = [json.loads(line) for line in content(backend, done.dataset_id).splitlines()]
    assert lines[1]["generation"]["sample"] == 1
    assert lines[1]["generation"]["seed"] == answer_seed(7, 0, 1)


def test_whatever_is_killed_in_between_the_dataset_has_the_same_bytes(backend: Backend) -> None:
    models = [BASE_MODEL]
    whole = ask(backend, models=models)
    claimed = claim(backend)
    answer(backend, claimed)
    parts.finish(backend, claimed)
    broken = ask(backend, models=models)
    for most in (1, 0, 1):
        gone = claim(backend)
        answer(backend, gone, most=most)
        requests.give_back(backend, gone.lease, counts=True)
        assert not parts.record(backend, gone, gone.parts[-1], played(gone, gone.parts[-1]))
    last = claim(backend)
    assert last.done == {0, 1}
    for _ in range(2):  # a part that is recorded again counts once
        answer(backend, last)
    parts.finish(backend, last)
    ends = [generations.get(backend, PROJECT, found.id) for found in (whole, broken)]
    assert [found.num_done for found in ends] == [150, 150]
    first, second = (content(backend, found.dataset_id).replace(found.id.encode(), b"") for found in ends)
    assert first == second
    assert rows_left(backend, broken.id) == 0


def rows_left(backend: Backend, generation_id: str) -> int:
    return len(backend.database.read(lambda session: rows.list_done(session, generation_id)))


def test_one_that_ends_its_process_each_time_fails(backend: Backend) -> None:
    asked = ask(backend)
    for _ in range(requests.MAX_TRIES):
        requests.give_back(backend, claim(backend).lease, counts=True)
    assert parts.claim(backend, 60) is None
    assert generations.get(backend, PROJECT, asked.id).error == (
        "It ended the process each time that it was tried; ask for less."
    )


def test_answers_that_cannot_be_given_are_counted_and_make_no_row(backend: Backend) -> None:
    asked = ask(backend, prompts=PROMPTS[:2], num_samples=1)
    claimed = claim(backend)
    good = played(claimed, claimed.parts[0])
    assert parts.record(backend, claimed, claimed.parts[0], [{"error": "It is too long."}, good[1]])
    parts.finish(backend, claimed)
    done = generations.get(backend, PROJECT, asked.id)
    assert (done.status, done.num_done, done.num_failed) == ("succeeded", 2, 1)
    assert done.failures == [{"model": BASE_MODEL, "prompt": 0, "detail": "It is too long."}]
    assert len(content(backend, done.dataset_id).splitlines()) == 1


def test_one_without_any_answer_fails_and_says_why(backend: Backend) -> None:
    asked = ask(backend, prompts=PROMPTS[:1], num_samples=1)
    claimed = claim(backend)
    parts.record(backend, claimed, claimed.parts[0], [{"error": "It is too long."}])
    parts.finish(backend, claimed)
    done = generations.get(backend, PROJECT, asked.id)
    assert (done.status, done.dataset_id) == ("failed", None)
    assert done.error == f"No model could answer any of the prompts. {BASE_MODEL}: It is too long."


def test_a_cancelled_one_stops_its_lane_and_leaves_no_part(backend: Backend) -> None:
    asked = ask(backend)
    claimed = claim(backend)
    answer(backend, claimed, most=1)
    with pytest.raises(GenerationNotDeletable):
        generations.delete(backend, PROJECT, asked.id)
    view, is_changed = generations.cancel(backend, PROJECT, asked.id)
    assert (view.status, is_changed) == ("cancelled", True)
    assert generations.cancel(backend, PROJECT, asked.id)[1] is False
    assert not requests.renew(backend, claimed.lease, 60)
    assert not parts.record(backend, claimed, claimed.parts[1], played(claimed, claimed.parts[1]))
    assert parts.claim(backend, 60) is None
    assert rows_left(backend, asked.id) == 0
    generations.delete(backend, PROJECT, asked.id)
    with pytest.raises(GenerationNotFound):
        generations.get(backend, PROJECT, asked.id)


def test_one_that_is_cancelled_while_its_dataset_is_made_leaves_none(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask(backend, prompts=PROMPTS[:2])
    claimed = claim(backend)
    answer(backend, claimed)
    create = intake.create

    def cancelled_meanwhile(*args: Any, **named: Any) -> Any:
        made = create(*args, **named)
        generations.cancel(backend, PROJECT, asked.id)
        return made

    monkeypatch.setattr(intake, "create", cancelled_meanwhile)
    parts.finish(backend, claimed)
    assert generations.get(backend, PROJECT, asked.id).status == "cancelled"
    assert datasets.list_page(backend, PROJECT).data == []


def test_an_ended_one_cannot_be_cancelled(backend: Backend) -> None:
    asked = ask(backend, prompts=PROMPTS[:2])
    claimed = claim(backend)
    answer(backend, claimed)
    parts.finish(backend, claimed)
    with pytest.raises(GenerationNotCancellable, match="succeeded already"):
        generations.cancel(backend, PROJECT, asked.id)
    generations.delete(backend, PROJECT, asked.id)
    assert [found.kind for found in datasets.list_page(backend, PROJECT).data] == ["responses"]


def test_prompts_are_drawn_of_a_version_each_once(backend: Backend) -> None:
    add_dataset(backend)
    lines = [{"line": n, "prompt": PROMPTS[n % 10], "chosen": "a", "rejected": "b"} for n in range(1, 31)]
    store_rows(backend, "ds_1", lines)
    asked = ask(backend, prompts=None, dataset_id="ds_1", num_prompts=4, num_samples=1, seed=3)
    claimed = claim(backend)
    assert (asked.source, asked.num_prompts) == ("ds_1@1", 4)
    drawn = [row["prompt"] for row in claimed.prompts]
    assert len(set(drawn)) == 4
    again = ask(backend, prompts=None, dataset_id="ds_1", num_prompts=4, num_samples=1, seed=3)
    assert [row["prompt"] for row in claim(backend).prompts] == drawn
    assert again.id != asked.id


def test_held_out_prompts_are_those_that_the_trainer_held_out(backend: Backend, tmp_path: Any) -> None:
    add_dataset(backend)
    lines = [{"line": n, "prompt": f"Question {n}?", "chosen": "a", "rejected": "b"} for n in range(1, 41)]
    store_rows(backend, "ds_1", lines)
    job = submit(backend, validation_fraction=0.25, seed=5, exclude_lines=[1, 2])
    asked = ask(backend, prompts=None, held_out_of=job.id)
    found = {row["line"] for row in claim(backend).prompts}
    kept, validation = tmp_path / "kept.jsonl", tmp_path / "validation.jsonl"
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines[2:]))
    split_validation(kept, 0.25, 5, tmp_path / "train.jsonl", validation)
    from_trainer = {json.loads(line)["line"] for line in validation.read_text().splitlines()}
    assert found == from_trainer
    assert asked.num_prompts == len(from_trainer)
    job = submit(backend, validation_fraction=0)
    with pytest.raises(InvalidRequest, match="held nothing out"):
        ask(backend, prompts=None, held_out_of=job.id)


def store_rows(backend: Backend, dataset_id: str, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    backend.store.put_bytes(keys.dataset_rows(PROJECT, dataset_id), text.encode())


@pytest.mark.parametrize(
    ("fields", "pointer", "told"),
    [
        ({"models": ["none"]}, "/models/0", "none"),
        ({"models": [BASE_MODEL, "job_none"]}, "/models/1", "there is no job job_none"),
        ({"prompts": None, "dataset_id": "ds_none"}, "/dataset_id", "There is no dataset ds_none"),
        ({"prompts": None, "held_out_of": "job_none"}, "/held_out_of", "job_none"),
        ({"num_samples": 64, "sampling": {"max_tokens": 8192}}, "/num_prompts", "take num_prompts 38 at most"),
    ],
)
def test_a_fault_is_named_with_its_place(backend: Backend, fields: dict[str, Any], pointer: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told) as refused:
        ask(backend, **fields)
    assert [error.pointer for error in refused.value.errors] == [pointer]


def test_pages_are_newest_first_and_the_number_under_way_is_bounded(backend: Backend) -> None:
    made = [ask(backend, prompts=PROMPTS[:1]).id for _ in range(generations.MAX_WAITING)]
    with pytest.raises(TooManyGenerations):
        ask(backend)
    page = generations.list_page(backend, PROJECT, limit=15)
    rest = generations.list_page(backend, PROJECT, limit=15, cursor=page.next_cursor)
    assert [found.id for found in [*page.data, *rest.data]] == made[::-1]
    assert rest.next_cursor is None
