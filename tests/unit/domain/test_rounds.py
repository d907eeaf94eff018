"""Requests of rounds: what is refused and where, which stages a round has, and the job that it trains."""

from typing import Any

import pytest
from played_rounds import body

from core.domain.errors import InvalidRequest
from core.domain.judging.round_checks import check_request
from core.domain.judging.rounds import (
    RoundsRequest,
    plan_round,
    plan_start,
    round_job,
    sampling_of,
)

JOB = {"base_model": "tiny", "dataset_id": "ds_1"}


def request_of(**fields: Any) -> RoundsRequest:
    return RoundsRequest.model_validate(body(**fields))


@pytest.mark.parametrize(
    ("fields", "pointer", "told"),
    [
        ({"job": JOB | {"method": "reward"}}, "/job/method", "no policy"),
        ({"job": JOB | {"variant": "kto"}}, "/job/variant", "rounds make pairs"),
        ({"job": JOB | {"variant": "none"}}, "/job/variant", "none"),
        ({"job": JOB | {"sft": {"epochs": 1}}}, "/job/sft", "initial"),
        ({"job": JOB | {"swap_lines": [1]}}, "/job/swap_lines", "its own pairs"),
        ({"job": JOB | {"metadata": {"round": "x"}}}, "/job/metadata/round", "another name"),
        ({"initial": JOB | {"base_model": "other"}}, "/initial/base_model", "same base_model"),
        ({"initial": JOB | {"method": "reward"}}, "/initial/method", "no policy"),
        ({"judge": {"kind": "arena", "arena_id": "arena_1"}}, "/judge/kind", "another judge"),
        ({"judge": {"kind": "model"}, "pairing": {"margin": 1}}, "/pairing/margin", "no scores"),
        ({"pairing": {"kind": "best"}}, "/pairing/kind", '"method": "supervised"'),
        ({"generation": {"num_samples": 3}}, "/generation/num_samples", "even"),
        ({"generation": {"num_prompts": 6000, "num_samples": 2}}, "/generation/num_prompts", "5,000 prompts"),
        (
            {"generation": {"num_prompts": 3000, "num_samples": 2, "sampling": {"max_tokens": 4096}}},
            "/generation/num_prompts",
            "take 2,441 prompts at most",
        ),
        (
            {"evaluation": {"num_prompts": 2000, "sampling": {"max_tokens": 8192}}},
            "/evaluation/num_prompts",
            "take 1,220 prompts at most",
        ),
        ({"generation": {"sampling": {"temperature": 0}}}, "/generation/sampling/temperature", "same answer"),
        ({"pairing": {"margin": 1}}, "/pairing/margin", "0 and 1"),
        (
            {"job": JOB | {"method": "supervised"}, "pairing": {"kind": "best", "min_score": 2}},
            "/pairing/min_score",
            "at most 1",
        ),
    ],
)
def test_what_cannot_be_done_is_named_with_its_place(fields: dict[str, Any], pointer: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told) as refused:
        check_request(request_of(**fields))
    assert [fault.pointer for fault in refused.value.errors] == [pointer]


@pytest.mark.parametrize(
    "pairing", [{"kind": "best_worst", "max_pairs_per_prompt": 2}, {"kind": "all", "min_score": 1}]
)
def test_settings_of_another_kind_of_pairing_are_refused(pairing: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="goes with the kind"):
        request_of(pairing=pairing)


def test_a_round_has_the_stages_that_its_settings_need() -> None:
    plain = request_of()
    first = ["generate", "judge", "pair", "train", "answer", "compare", "drift"]
    assert plan_round(plain, has_earlier=False) == first
    later = ["generate", "judge", "pair", "train", "answer", "gather", "compare", "compare_first", "drift"]
    assert plan_round(plain, has_earlier=True) == [*later, "drift_first"]
    assert plan_round(request_of(reference="first"), has_earlier=True) == [*later[:3], "mix", *later[3:]]
    mixed = request_of(pairing={"kind": "file"}, file_ratio=1, generation={"num_prompts": 20, "num_samples": 1})
    check_request(mixed)
    assert plan_round(mixed, has_earlier=False) == ["generate", "match", "judge", "pair", "mix", *first[3:]]
    supervised = request_of(job=JOB | {"method": "supervised"})
    assert supervised.chosen_pairing.kind == "best"
    assert plan_round(supervised, has_earlier=False) == first[:-1]


def test_prompts_are_held_out_and_a_first_policy_is_trained_before_the_rounds() -> None:
    assert plan_start(request_of()) == ["split"]
    assert plan_start(request_of(initial=JOB)) == ["split", "initial"]
    assert plan_start(request_of(evaluation={"dataset_id": "ds_2"})) == []


def test_a_round_trains_from_a_policy_on_its_pairs_and_skips_sft() -> None:
    job = request_of(job=JOB | {"beta": 0.3, "dataset_version": 2, "metadata": {"team": "a"}}).job
    made = round_job(job, 2, base_model="job_1", dataset_id="ds_9", rounds_id="rounds_1")
    assert (made.base_model, made.dataset_id, made.dataset_version, made.sft) == ("job_1", "ds_9", None, "skip")
    assert made.beta == 0.3
    assert made.metadata == {"team": "a", "rounds": "rounds_1", "round": "2"}
    initial = round_job(job, 0, base_model="tiny", dataset_id="ds_9", rounds_id="rounds_1")
    assert initial.sft != "skip"


def test_each_round_samples_with_a_seed_of_its_own() -> None:
    request = request_of(generation={"num_prompts": 20, "num_samples": 4, "sampling": {"seed": 2**31 - 1}})
    seeds = {sampling_of(request, number).seed for number in range(1, 6)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**31 for seed in seeds)
