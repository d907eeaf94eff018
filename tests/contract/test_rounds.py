"""Rounds over a real database: their stages, what a process that dies leaves, steering, ends, and extension."""

from collections import Counter
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest
from backends import PROJECT
from played_rounds import (
    add_file,
    advance_to,
    check_here,
    child_of,
    create,
    file_of,
    get,
    play,
    play_to_end,
    result_of,
    stages,
)

from core.datasets.check.check_process import CheckCrashed
from core.datasets.result import CheckResult
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import InvalidRequest
from core.domain.jobs.job_state import JobStatus
from core.domain.judging.rounds import RoundsStatus, RoundsStopReason, RoundStepStatus
from core.services.backend import Backend
from core.services.datasets import datasets, intake
from core.services.datasets.versions import versions
from core.services.datasets.versions.versions import Split, Taking
from core.services.generations import generations
from core.services.jobs import jobs, steering
from core.services.judgements import judgements
from core.services.requests import requests, scores
from core.services.rounds import children, progress, rounds
from core.services.rounds.rounds import RoundsEnded, RoundsNotDeletable, RoundsNotFound, TooManyRounds
from core.services.rounds.view import RoundsView
from core.storage.object_store import StoreUnavailable

JOB = {"base_model": "tiny", "dataset_id": "ds_1"}


@pytest.fixture(autouse=True)
def file(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of prompts; what rounds make is checked in this process."""
    monkeypatch.setattr(intake, "check_in_child", check_here)
    add_file(backend)


def test_two_rounds_end_with_win_rates_pairs_and_drift(backend: Backend) -> None:
    made = create(backend, name="mine", metadata={"team": "a"})
    assert (made.status, made.first_policy, made.best_policy) == (RoundsStatus.RUNNING, "tiny", "tiny")
    assert stages(made, 0) == ["split"]
    ended = play_to_end(backend, made.id)
    assert (ended.status, ended.stop_reason, ended.error) == (RoundsStatus.FINISHED, RoundsStopReason.ALL_ROUNDS, None)
    assert {step.status for step in ended.steps} == {RoundStepStatus.SUCCEEDED}
    first, second = ended.rounds
    assert (first.start_policy, second.start_policy) == ("tiny", first.policy)
    assert ended.best_policy == second.policy
    for one in ended.rounds:
        assert one.win_rate is not None
        assert one.win_rate_first is not None
        assert one.win_rate["low"] < one.win_rate["value"] < one.win_rate["high"]
    assert first.win_rate == first.win_rate_first
    assert second.win_rate_first is not None
    assert first.win_rate_first is not None
    assert second.win_rate_first["value"] > first.win_rate_first["value"] > 0.5
    assert first.drift is not None
    assert first.drift["kl"] == pytest.approx(1.0, abs=0.05)
    for one in ended.rounds:
        job = jobs.get(backend, PROJECT, str(one.policy))
        assert job.spec["base_model"] == one.start_policy
        assert (job.metadata, job.spec["sft"]) == ({"rounds": made.id, "round": str(one.number)}, "skip")
        assert job.name == f"mine, round {one.number}: policy"


def test_pairs_are_the_best_answer_against_the_worst_and_no_held_out_prompt_is_trained_on(backend: Backend) -> None:
    ended = play_to_end(backend, create(backend).id)
    split = result_of(ended, 0, "split")
    held_out = {row["prompt"] for row in file_of(backend, split["dataset_id"])}
    assert (split["num_held_out"], split["num_rows"]) == (len(held_out), 60 - len(held_out))
    drawn = []
    for number in (1, 2):
        rows = file_of(backend, result_of(ended, number, "pair")["dataset_id"])
        assert len(rows) == ended.rounds[number - 1].num_pairs
        for row in rows:
            assert "And more" in row["rejected"]
            assert "And more" not in row["chosen"]
            assert row["pair"] == {"round": number, "scores": [1.0, 0.0]}
        drawn.append({row["prompt"] for row in rows})
        answered = {row["prompt"] for row in file_of(backend, result_of(ended, number, "answer")["dataset_id"])}
        assert answered == held_out
        assert not answered & drawn[-1]
    assert drawn[0] != drawn[1], "prompts are drawn anew"
    made_from = datasets.get(backend, PROJECT, result_of(ended, 1, "pair")["dataset_id"]).made_from
    assert made_from is not None
    assert (made_from["how"], made_from["rounds_id"], made_from["round"]) == ("round", ended.id, 1)


def test_rounds_end_once_a_policy_is_no_better_and_go_on_where_they_are_extended(backend: Backend) -> None:
    ended = play_to_end(backend, create(backend, num_rounds=3, stop_early=True).id, gain=0.0)
    assert (ended.status, ended.stop_reason) == (RoundsStatus.FINISHED, RoundsStopReason.NO_IMPROVEMENT)
    assert (len(ended.rounds), ended.best_policy) == (1, "tiny")
    view, is_changed = rounds.extend(backend, PROJECT, ended.id, 3)
    assert (view.status, is_changed, len(view.rounds)) == (RoundsStatus.RUNNING, True, 2)
    assert rounds.extend(backend, PROJECT, ended.id, 3)[1] is False
    again = play_to_end(backend, ended.id, gain=0.0)
    assert (again.stop_reason, len(again.rounds)) == (RoundsStopReason.NO_IMPROVEMENT, 2)
    better = play_to_end(backend, rounds.extend(backend, PROJECT, ended.id, 3)[0].id, gain=0.3)
    assert (better.stop_reason, len(better.rounds)) == (RoundsStopReason.ALL_ROUNDS, 3)
    with pytest.raises(InvalidRequest, match="3 rounds are done"):
        rounds.extend(backend, PROJECT, ended.id, 2)


def test_rounds_end_where_the_judge_finds_no_answer_better(backend: Backend) -> None:
    ended = play_to_end(backend, create(backend, judge={"kind": "exact_match", "text": "never"}).id)
    assert (ended.status, ended.stop_reason) == (RoundsStatus.FINISHED, RoundsStopReason.NO_PAIRS)
    assert ended.rounds[0].num_pairs == 0
    assert ended.rounds[0].status is RoundStepStatus.SKIPPED
    assert rounds.extend(backend, PROJECT, ended.id, 3)[0].rounds[-1].number == 2


class Killed(BaseException):
    """The process dies here."""


PLACES = (
    "rounds.child_created",
    "rounds.child_noted",
    "rounds.in_transaction",
    "rounds.planned",
    "rounds.step_recorded",
)


def test_a_process_that_dies_anywhere_makes_nothing_twice(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds_id = create(backend).id
    passes: Counter[str] = Counter()

    def die(name: str) -> None:
        passes[name] += 1
        if passes[name] % 2:
            raise Killed

    monkeypatch.setattr(progress, "reach", die)
    for _ in range(300):
        with suppress(Killed):
            progress.advance(backend, rounds_id)
        if get(backend, rounds_id).finished_at is not None:
            break
        play(backend)
    ended = get(backend, rounds_id)
    assert ended.stop_reason is RoundsStopReason.ALL_ROUNDS
    assert {name for name in PLACES if passes[name] > 1} == {*PLACES}
    check_nothing_twice(backend, ended)


def check_nothing_twice(backend: Backend, view: RoundsView) -> None:
    """All that there is has its step."""
    ids = {step.child_id for step in view.steps}
    assert len(ids) == len(view.steps)
    for listed in (generations.list_page, judgements.list_page, jobs.list_page):
        found: Any = listed(backend, PROJECT, limit=100)
        assert {one.id for one in found.data} <= ids
    made = {one.id for one in datasets.list_page(backend, PROJECT, limit=100).data if one.made_from}
    results = [step.result.get(name) for step in view.steps for name in ("dataset_id", "train_dataset_id")]
    of_judgements = {
        judgements.get(backend, PROJECT, step.child_id).dataset_id for step in view.steps if step.kind == "judgement"
    }
    assert made <= {*results} | of_judgements


def test_repeated_creation_finds_the_rounds(backend: Backend) -> None:
    first, again = (create(backend, rounds_id="rounds_1") for _ in range(2))
    assert first == again


def test_a_paused_job_follows_and_nothing_comes_after_it(backend: Backend) -> None:
    rounds_id = create(backend).id
    found = advance_to(backend, rounds_id, "train")
    job_id = child_of(found, 1, "train")
    assert [rounds.pause(backend, PROJECT, rounds_id)[1] for _ in range(2)] == [True, False]
    progress.step(backend)
    assert jobs.get(backend, PROJECT, job_id).status is JobStatus.PAUSED
    assert play(backend) is None
    assert rounds.resume(backend, PROJECT, rounds_id)[1]
    progress.step(backend)
    assert jobs.get(backend, PROJECT, job_id).status is JobStatus.QUEUED
    assert play_to_end(backend, rounds_id).stop_reason is RoundsStopReason.ALL_ROUNDS


def test_a_job_that_a_user_has_paused_stays_paused(backend: Backend) -> None:
    rounds_id = create(backend).id
    job_id = child_of(advance_to(backend, rounds_id, "train"), 1, "train")
    steering.pause(backend, PROJECT, job_id)
    rounds.pause(backend, PROJECT, rounds_id)
    progress.step(backend)
    rounds.resume(backend, PROJECT, rounds_id)
    progress.step(backend)
    assert jobs.get(backend, PROJECT, job_id).status is JobStatus.PAUSED


def test_a_generation_ends_while_paused_and_is_judged_once_resumed(backend: Backend) -> None:
    rounds_id = create(backend).id
    advance_to(backend, rounds_id, "generate")
    rounds.pause(backend, PROJECT, rounds_id)
    assert play(backend) is not None
    progress.step(backend)
    found = get(backend, rounds_id)
    states = {step.stage.value: step.status.value for step in found.steps}
    assert (states["generate"], states["judge"]) == ("succeeded", "waiting")
    rounds.resume(backend, PROJECT, rounds_id)
    advance_to(backend, rounds_id, "judge")


@pytest.mark.parametrize("stage", ["generate", "judge", "train"])
def test_cancel_ends_what_is_under_way(backend: Backend, stage: str) -> None:
    rounds_id = create(backend).id
    child_id = child_of(advance_to(backend, rounds_id, stage), 1, stage)
    with pytest.raises(RoundsNotDeletable):
        rounds.delete(backend, PROJECT, rounds_id)
    assert [rounds.cancel(backend, PROJECT, rounds_id)[1] for _ in range(2)] == [True, False]
    progress.step(backend)
    ended = get(backend, rounds_id)
    assert (ended.status, ended.finished_at is not None) == (RoundsStatus.CANCELLED, True)
    get_child: Any = {"generate": generations.get, "judge": judgements.get, "train": jobs.get}[stage]
    assert get_child(backend, PROJECT, child_id).status.value == "cancelled"
    assert {step.status.value for step in ended.steps} == {"succeeded", "cancelled"}
    assert play(backend) is None
    with pytest.raises(RoundsEnded):
        rounds.resume(backend, PROJECT, rounds_id)
    rounds.delete(backend, PROJECT, rounds_id)
    with pytest.raises(RoundsNotFound):
        rounds.get(backend, PROJECT, rounds_id)
    assert get_child(backend, PROJECT, child_id)


def test_a_cancellation_in_the_midst_of_a_start_leaves_no_child_behind(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the child's transaction there is none; after it the cancellation finds the child."""
    rounds_id = create(backend).id
    start = children.start

    def start_cancelled(*args: Any) -> Any:
        if args[2].stage == "train":
            rounds.cancel(backend, PROJECT, rounds_id)
        return start(*args)

    monkeypatch.setattr(progress.children, "start", start_cancelled)
    ended = play_to_end(backend, rounds_id)
    assert ended.status is RoundsStatus.CANCELLED
    assert jobs.list_page(backend, PROJECT).data == []


def test_a_failed_stage_is_told_and_done_again_by_a_new_child(backend: Backend) -> None:
    rounds_id = create(backend).id
    before = child_of(advance_to(backend, rounds_id, "train"), 1, "train")
    steering.cancel(backend, PROJECT, before)
    progress.step(backend)
    failed = get(backend, rounds_id)
    assert (failed.status, failed.error) == (RoundsStatus.FAILED, "Round 1, train: The job was cancelled.")
    assert failed.finished_at is not None
    with pytest.raises(RoundsEnded, match="resume them first"):
        rounds.extend(backend, PROJECT, rounds_id, 5)
    assert rounds.resume(backend, PROJECT, rounds_id)[0].error is None
    ended = play_to_end(backend, rounds_id)
    assert ended.stop_reason is RoundsStopReason.ALL_ROUNDS
    step = next(step for step in ended.steps if (step.round, step.stage) == (1, "train"))
    assert step.earlier_ids == [before]
    assert jobs.get(backend, PROJECT, step.child_id).status is JobStatus.SUCCEEDED


def test_a_drift_that_cannot_be_measured_stops_no_round(backend: Backend) -> None:
    rounds_id = create(backend, num_rounds=1).id
    advance_to(backend, rounds_id, "drift")
    claim = scores.claim(backend, 60)
    assert claim is not None
    requests.fail(backend, claim.lease, "It is gone.")
    ended = play_to_end(backend, rounds_id)
    assert (ended.status, ended.stop_reason) == (RoundsStatus.FINISHED, RoundsStopReason.ALL_ROUNDS)
    assert (ended.rounds[0].status, ended.rounds[0].drift) == (RoundStepStatus.SUCCEEDED, None)
    assert [(step.stage, step.error) for step in ended.steps if step.error] == [("drift", "It is gone.")]


def test_what_cannot_be_done_for_now_says_so(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds_id = create(backend, num_rounds=1).id
    for error, told in ((StoreUnavailable("The store is away."), "The store is away."), (KeyError("x"), "log")):
        with monkeypatch.context() as patch:
            patch.setattr(progress.children, "start", Mock(side_effect=error))
            progress.step(backend)
        found = get(backend, rounds_id)
        assert found.status is RoundsStatus.RUNNING
        assert told in str(found.steps[0].error)
    ended = play_to_end(backend, rounds_id)
    assert (ended.stop_reason, ended.steps[0].error) == (RoundsStopReason.ALL_ROUNDS, None)


@pytest.mark.parametrize("stage", ["split", "pair"])
def test_a_dataset_that_was_made_as_its_process_died_is_told_whole_after_a_pause(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    rounds_id = create(backend, num_rounds=1).id

    def die(name: str) -> None:
        due = next(step for step in get(backend, rounds_id).steps if step.status == "waiting")
        if name == "rounds.child_created" and due.stage == stage:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(progress, "reach", die)
        for _ in range(20):
            try:
                progress.advance(backend, rounds_id)
            except Killed:
                break
            play(backend)
    rounds.pause(backend, PROJECT, rounds_id)
    progress.advance(backend, rounds_id)
    assert next(step for step in get(backend, rounds_id).steps if step.stage == stage).status == "waiting"
    rounds.resume(backend, PROJECT, rounds_id)
    ended = play_to_end(backend, rounds_id)
    assert (ended.stop_reason, ended.error) == (RoundsStopReason.ALL_ROUNDS, None)
    check_nothing_twice(backend, ended)


def test_a_judgement_that_is_deleted_before_its_pairs_are_made_is_made_again(backend: Backend) -> None:
    rounds_id = create(backend, num_rounds=1).id
    judge_id = child_of(advance_to(backend, rounds_id, "judge"), 1, "judge")
    rounds.pause(backend, PROJECT, rounds_id)
    play(backend)
    progress.advance(backend, rounds_id)
    judgements.delete(backend, PROJECT, judge_id)
    rounds.resume(backend, PROJECT, rounds_id)
    progress.advance(backend, rounds_id)
    failed = get(backend, rounds_id)
    assert (failed.status, failed.error) == (RoundsStatus.FAILED, f"Round 1, pair: There is no judgement {judge_id}.")
    rounds.resume(backend, PROJECT, rounds_id)
    ended = play_to_end(backend, rounds_id)
    assert ended.stop_reason is RoundsStopReason.ALL_ROUNDS
    assert next(step for step in ended.steps if step.stage == "judge").earlier_ids == [judge_id]


@pytest.mark.parametrize("number", [1, 2])
def test_datasets_that_are_deleted_before_they_are_read_are_made_again(backend: Backend, number: int) -> None:
    rounds_id = create(backend).id
    found = advance_to(backend, rounds_id, "answer", number)
    split = result_of(found, 0, "split")
    rounds.pause(backend, PROJECT, rounds_id)
    play(backend)
    progress.advance(backend, rounds_id)
    before = [split["dataset_id"], result_of(get(backend, rounds_id), number, "answer")["dataset_id"]]
    if number == 2:
        before.append(result_of(found, 1, "answer")["dataset_id"])
    held_out = file_of(backend, split["dataset_id"])
    for dataset_id in before:
        datasets.delete(backend, PROJECT, dataset_id)
    rounds.resume(backend, PROJECT, rounds_id)
    progress.advance(backend, rounds_id)
    assert get(backend, rounds_id).status is RoundsStatus.FAILED
    rounds.resume(backend, PROJECT, rounds_id)
    ended = play_to_end(backend, rounds_id)
    assert (ended.stop_reason, ended.error) == (RoundsStopReason.ALL_ROUNDS, None)
    assert file_of(backend, result_of(ended, 0, "split")["dataset_id"]) == held_out
    renewed = {(step.round, step.stage.value) for step in ended.steps if step.earlier_ids}
    wanted = {(0, "split"), (number, "answer"), (1, "answer")}
    assert renewed == wanted | ({(1, "compare")} if number == 1 else {(2, "gather")})


def test_rounds_that_go_on_count_as_open(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = play_to_end(backend, create(backend, num_rounds=1).id)
    failed = create(backend, num_rounds=1).id
    steering.cancel(backend, PROJECT, child_of(advance_to(backend, failed, "train"), 1, "train"))
    progress.step(backend)
    monkeypatch.setattr(rounds, "MAX_OPEN", 0)
    with pytest.raises(TooManyRounds):
        rounds.extend(backend, PROJECT, finished.id, 2)
    with pytest.raises(TooManyRounds):
        rounds.resume(backend, PROJECT, failed)


def test_a_check_that_somebody_kills_is_made_again_some_times(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds_id = create(backend, num_rounds=1).id
    advance_to(backend, rounds_id, "judge")
    play(backend)

    def die(*_args: Any, **_kwargs: Any) -> CheckResult:
        raise CheckCrashed("The check died.")

    with monkeypatch.context() as patch:
        patch.setattr(intake, "check_in_child", die)
        for status in (RoundsStatus.RUNNING, RoundsStatus.RUNNING, RoundsStatus.FAILED):
            progress.step(backend)
            assert get(backend, rounds_id).status is status
    assert get(backend, rounds_id).error == "Round 1, pair: The check died."
    rounds.resume(backend, PROJECT, rounds_id)
    assert play_to_end(backend, rounds_id).stop_reason is RoundsStopReason.ALL_ROUNDS


def test_what_waits_for_room_says_so(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds_id = create(backend, num_rounds=1).id
    with monkeypatch.context() as patch:
        patch.setattr(generations, "MAX_WAITING", 0)
        progress.step(backend)
    step = next(step for step in get(backend, rounds_id).steps if step.stage == "generate")
    assert step.status is RoundStepStatus.WAITING
    assert step.error is not None
    assert "generations are waiting" in step.error
    assert play_to_end(backend, rounds_id).stop_reason is RoundsStopReason.ALL_ROUNDS


def test_the_first_policy_is_trained_on_what_is_not_held_out(backend: Backend) -> None:
    ended = play_to_end(backend, create(backend, initial=JOB | {"method": "supervised"}, num_rounds=1).id)
    first = child_of(ended, 0, "initial")
    assert (ended.first_policy, ended.rounds[0].start_policy) == (first, first)
    spec = jobs.get(backend, PROJECT, first).spec
    assert (spec["base_model"], spec["dataset_id"]) == ("tiny", result_of(ended, 0, "split")["train_dataset_id"])
    answers = file_of(backend, result_of(ended, 1, "answer")["dataset_id"])
    assert {row["model"] for row in answers} == {first, ended.rounds[0].policy}


def test_with_the_first_policy_as_reference_all_pairs_so_far_are_trained_on(backend: Backend) -> None:
    ended = play_to_end(backend, create(backend, reference="first").id, gain=0.3)
    assert [one.start_policy for one in ended.rounds] == ["tiny", "tiny"]
    assert "mix" not in stages(ended, 1)
    mixed = result_of(ended, 2, "mix")
    assert (mixed["num_fresh"], mixed["num_earlier"]) == (ended.rounds[1].num_pairs, ended.rounds[0].num_pairs)
    assert jobs.get(backend, PROJECT, str(ended.rounds[1].policy)).spec["dataset_id"] == mixed["dataset_id"]
    assert "drift_first" not in stages(ended, 2), "its own reference is the first policy"
    assert ended.rounds[1].drift is not None


@pytest.mark.parametrize("ratio", [0.5, 10])
def test_rows_of_the_file_are_mixed_in_by_a_ratio(backend: Backend, ratio: float) -> None:
    ended = play_to_end(backend, create(backend, file_ratio=ratio, num_rounds=1).id)
    mixed, split = result_of(ended, 1, "mix"), result_of(ended, 0, "split")
    assert mixed["num_file"] == min(round(ratio * mixed["num_fresh"]), split["num_rows"])
    rows = file_of(backend, mixed["dataset_id"])
    held_out = {row["prompt"] for row in file_of(backend, split["dataset_id"])}
    of_file = [row for row in rows if row["chosen"].startswith("File")]
    assert len(of_file) == mixed["num_file"]
    assert not {row["prompt"] for row in rows} & held_out
    assert len({row["prompt"] for row in of_file}) == len(of_file)


def test_answers_are_held_against_those_of_the_file(backend: Backend) -> None:
    fields = {"pairing": {"kind": "file"}, "generation": {"num_prompts": 20, "num_samples": 3}, "num_rounds": 1}
    ended = play_to_end(backend, create(backend, **fields, judge={"kind": "length"}).id)
    assert result_of(ended, 1, "match")["num_rows"] == 60
    rows = file_of(backend, result_of(ended, 1, "pair")["dataset_id"])
    assert len(rows) == 60
    for row in rows:
        assert row["chosen"] == f"File {row['prompt'].split()[1][:-1]}."
        assert row["rejected"].startswith("Answer")


def test_the_best_answers_are_imitated(backend: Backend) -> None:
    fields = {"job": JOB | {"method": "supervised"}, "file_ratio": 0.5, "num_rounds": 1}
    ended = play_to_end(backend, create(backend, **fields).id)
    best = datasets.get(backend, PROJECT, result_of(ended, 1, "pair")["dataset_id"])
    assert best.kind == DatasetKind.DEMONSTRATION
    assert all("And more" not in row["response"] for row in file_of(backend, best.id))
    mixed = file_of(backend, result_of(ended, 1, "mix")["dataset_id"])
    assert any(row["response"].startswith("File") for row in mixed)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"job": JOB | {"dataset_id": "ds_none"}}, "/job/dataset_id"),
        ({"job": JOB | {"base_model": "none"}}, "/job/base_model"),
        ({"job": JOB | {"dataset_id": "ds_2"}, "file_ratio": 1}, "/file_ratio"),
        ({"evaluation": {"dataset_id": "ds_none"}}, "/evaluation/dataset_id"),
        ({"initial": JOB | {"dataset_id": "ds_none"}}, "/initial/dataset_id"),
        ({"judge": {"kind": "reward", "job_id": "job_none"}}, "/judge/job_id"),
        ({"evaluation": {"judge": {"kind": "regex", "pattern": "("}}}, "/evaluation/judge/pattern"),
        ({"job": JOB | {"validation_dataset_id": "ds_2"}}, "/job/validation_dataset_id"),
        ({"job": JOB | {"tracking": {"project": "x"}}}, "/job/tracking"),
        ({"job": JOB | {"dataset_id": "ds_3"}, "pairing": {"kind": "file"}}, "/pairing/kind"),
    ],
)
def test_a_fault_is_named_before_anything_is_made(backend: Backend, fields: dict[str, Any], pointer: str) -> None:
    add_file(backend, "ds_2", DatasetKind.DEMONSTRATION)
    add_file(backend, "ds_3", DatasetKind.RESPONSES)
    with pytest.raises(InvalidRequest) as refused:
        create(backend, **fields)
    assert [fault.pointer for fault in refused.value.errors] == [pointer], refused.value.detail
    assert rounds.list_page(backend, PROJECT).data == []


SFT = {"method": "preference", "sft": {"dataset_id": "ds_2"}}


@pytest.mark.parametrize(
    ("fields", "pointer", "told"),
    [
        ({"evaluation": {"dataset_id": "ds_1"}}, "/evaluation/dataset_id", "ds_1@1 is trained on"),
        ({"evaluation": {"dataset_id": "ds_2"}}, "/evaluation/dataset_id", "60 rows of ds_1@1 .* line 1.* of ds_2@1"),
        ({"initial": JOB | {"dataset_id": "ds_2", "method": "supervised"}}, "/initial/dataset_id", "seed 0"),
        ({"initial": JOB | SFT}, "/initial/sft/dataset_id", r"fractions \[0.4, 0.6\] and seed 0"),
        ({"evaluation": {"held_out_fraction": 1e-9}}, "/evaluation/held_out_fraction", "0 of its prompts"),
    ],
)
def test_no_held_out_prompt_may_be_trained_on(
    backend: Backend, fields: dict[str, Any], pointer: str, told: str
) -> None:
    add_file(backend, "ds_2", DatasetKind.DEMONSTRATION)
    with pytest.raises(InvalidRequest, match=told) as refused:
        create(backend, **fields)
    assert [fault.pointer for fault in refused.value.errors] == [pointer]
    assert rounds.list_page(backend, PROJECT).data == []


def test_another_file_split_alike_trains_the_first_policy(backend: Backend) -> None:
    """The advice of the refusal works: a prompt is in the same part of every file."""
    add_file(backend, "ds_2", DatasetKind.DEMONSTRATION)
    parts = versions.split(backend, PROJECT, "ds_2", Split(fractions=(0.4, 0.6), seed=0), Taking())
    initial = JOB | {"dataset_id": parts[1].id, "method": "supervised"}
    made = create(backend, initial=initial, num_rounds=1)
    assert made.requested["initial"]["dataset_id"] == f"{parts[1].id}@1"
    ended = play_to_end(backend, made.id)
    assert jobs.get(backend, PROJECT, child_of(ended, 0, "initial")).spec["dataset_id"] == parts[1].id


def test_prompts_of_a_file_without_pairs_are_enough(backend: Backend) -> None:
    add_file(backend, "ds_2", DatasetKind.DEMONSTRATION)
    ended = play_to_end(backend, create(backend, job=JOB | {"dataset_id": "ds_2"}, num_rounds=1).id)
    assert ended.stop_reason is RoundsStopReason.ALL_ROUNDS


def test_lists_are_paged_newest_first(backend: Backend) -> None:
    made = [create(backend).id for _ in range(3)]
    first = rounds.list_page(backend, PROJECT, limit=2)
    rest = rounds.list_page(backend, PROJECT, limit=2, cursor=first.next_cursor)
    assert [one.id for one in [*first.data, *rest.data]] == made[::-1]
