"""Previews of rounds: what they say is what the rounds then do."""

from dataclasses import replace
from typing import Any

import pytest
from backends import PROJECT
from played_rounds import NUM_PROMPTS, add_file, body, check_here, create, play_to_end, result_of, stages

from core.domain.errors import InvalidRequest
from core.domain.judging.rounds import RoundsRequest, RoundStage
from core.services.backend import Backend
from core.services.datasets import datasets, intake
from core.services.generations import generations
from core.services.rounds import previews
from core.services.rounds.previews import RoundsPreview

SUPERVISED = {"base_model": "tiny", "dataset_id": "ds_1", "method": "supervised"}


@pytest.fixture(autouse=True)
def file(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "check_in_child", check_here)
    add_file(backend)


def preview(backend: Backend, **fields: Any) -> RoundsPreview:
    return previews.preview(backend, PROJECT, RoundsRequest.model_validate(body(**fields)))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_rounds": 1, "generation": {"num_prompts": 500, "num_samples": 2}},
        {"reference": "first", "file_ratio": 0.5},
        {"pairing": {"kind": "all"}, "evaluation": {"held_out_fraction": 0.4, "num_prompts": 5}},
        {"pairing": {"kind": "file", "max_pairs_per_prompt": 2}},
        {"job": SUPERVISED, "initial": SUPERVISED, "file_ratio": 10},
    ],
)
def test_what_is_said_before_comes_true(backend: Backend, fields: dict[str, Any]) -> None:
    told = preview(backend, **fields)
    ended = play_to_end(backend, create(backend, **fields).id)
    assert ended.status == "finished", ended.error
    assert stages(ended, 0) == told.before
    for one in ended.rounds:
        planned = told.first_round if one.number == 1 else told.later_rounds
        assert stages(ended, one.number) == planned
        answered = next(step for step in ended.steps if (step.round, step.stage) == (one.number, "generate"))
        generation = generations.get(backend, PROJECT, answered.child_id)
        assert (generation.num_prompts, generation.num_answers) == (told.num_prompts, told.num_answers)
        trained = result_of(ended, one.number, "mix" if RoundStage.MIX in planned else "pair")["dataset_id"]
        num_rows = datasets.get(backend, PROJECT, trained).num_accepted
        assert num_rows is not None
        assert 0 < num_rows <= told.max_rows[one.number - 1]
        for judgement in told.judgements:
            if judgement.stage in planned:
                found = result_of(ended, one.number, judgement.stage.value)["num_pairs"]
                assert 0 < found <= judgement.num_pairs
                assert judgement.stage is RoundStage.JUDGE or found == told.num_held_out == judgement.num_pairs
    assert told.num_held_out + told.num_prompts <= NUM_PROMPTS


def test_questions_to_a_language_model_are_counted_with_their_bound(backend: Backend) -> None:
    own = {"judge_url": "http://127.0.0.1:9/v1", "judge_model": "m", "judge_max_requests": 100}
    asked = replace(backend, settings=backend.settings.model_copy(update=own))
    told = preview(asked, judge={"kind": "model", "max_requests": 50}, pairing={"kind": "all"})
    first, compare, _ = told.judgements
    assert (first.num_pairs, first.num_questions, first.max_requests) == (40, 80, 50)
    assert compare.num_questions == 2 * told.num_held_out
    assert told.max_rows == [40, 40], "a language model has compared two answers of four with each other"
    shared = preview(asked, judge={"kind": "model"}, evaluation={"held_out_fraction": 0.4, "judge": {"kind": "length"}})
    assert [item.max_requests for item in shared.judgements] == [100, None, None]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"job": SUPERVISED | {"base_model": "none"}}, "/job/base_model"),
        ({"job": SUPERVISED | {"dataset_id": "ds_none"}}, "/job/dataset_id"),
        ({"judge": {"kind": "regex", "pattern": "("}}, "/judge/pattern"),
        ({"job": SUPERVISED | {"sft": {"epochs": 1, "dataset_id": "ds_none"}}}, "/job/sft/dataset_id"),
        ({"evaluation": {"held_out_fraction": 0.0001}}, "/evaluation/held_out_fraction"),
    ],
)
def test_what_would_be_refused_is_refused(backend: Backend, fields: dict[str, Any], pointer: str) -> None:
    for ask in (preview, create):
        with pytest.raises(InvalidRequest) as refused:
            ask(backend, **fields)
        assert [fault.pointer for fault in refused.value.errors] == [pointer]
