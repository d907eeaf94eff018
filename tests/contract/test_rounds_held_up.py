"""Rounds that do not get on: paused in the midst of an answer or a verdict, met by what nobody expected, too many."""

import threading
from typing import Any
from unittest.mock import Mock

import pytest
from backends import PROJECT
from played_rounds import add_file, advance_to, check_here, child_of, create, get, play, play_to_end

from core.database.tables.rounds import Rounds
from core.domain.errors import Conflict
from core.domain.jobs.job_state import JobStatus
from core.domain.judging.rounds import RoundsStatus, RoundsStopReason, RoundStepStatus
from core.services.backend import Backend
from core.services.datasets import intake
from core.services.generations import generations, parts
from core.services.jobs import jobs
from core.services.judgements import judgements, judging
from core.services.requests import requests
from core.services.rounds import progress, rounds, troubles
from core.services.rounds.rounds import TooManyRounds
from core.services.rounds.run import Run
from core.storage.object_store import StoreUnavailable
from worker.light.judging import RuleJudge

LOG = "The reason is in the service's log."


@pytest.fixture(autouse=True)
def file(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "check_in_child", check_here)
    add_file(backend)


def pause(backend: Backend, rounds_id: str) -> None:
    rounds.pause(backend, PROJECT, rounds_id)
    progress.step(backend)


def resume(backend: Backend, rounds_id: str) -> None:
    rounds.resume(backend, PROJECT, rounds_id)
    progress.step(backend)


def answered() -> dict[str, Any]:
    return {"text": "Answer here.", "finish_reason": "stop", "num_tokens": 3, "logprob": -1.5}


def test_a_paused_generation_stops_after_its_part_and_goes_on_with_the_next(backend: Backend) -> None:
    rounds_id = create(backend, generation={"num_prompts": 60, "num_samples": 4}, num_rounds=1).id
    child_id = child_of(advance_to(backend, rounds_id, "generate"), 1, "generate")
    claim = parts.claim(backend, 60)
    assert claim is not None
    first, second, *others = claim.parts
    assert others, "there are more parts"
    assert parts.record(backend, claim, first, [answered()] * first.count)
    pause(backend, rounds_id)
    assert not parts.record(backend, claim, second, [answered()] * second.count), "it is kept, and the lane stops"
    requests.give_back(backend, claim.lease)
    held = generations.get(backend, PROJECT, child_id)
    assert (held.status, held.is_held, held.num_done) == ("queued", True, first.count + second.count)
    progress.step(backend)
    assert parts.claim(backend, 60) is None
    resume(backend, rounds_id)
    assert not generations.get(backend, PROJECT, child_id).is_held
    again = parts.claim(backend, 60)
    assert again is not None
    assert again.done == {first.number, second.number}
    requests.give_back(backend, again.lease)
    assert play(backend) == child_id
    assert get(backend, rounds_id).status is RoundsStatus.RUNNING


def test_a_paused_judgement_stops_after_the_pairs_under_way(backend: Backend) -> None:
    rounds_id = create(backend, num_rounds=1).id
    child_id = child_of(advance_to(backend, rounds_id, "judge"), 1, "judge")
    claim = judging.claim(backend, 60)
    assert claim is not None
    pause(backend, rounds_id)
    batch = RuleJudge(claim).judge(judging.open_pairs(backend, claim, 5))
    assert not judging.record(backend, claim, batch), "they are kept, and the lane stops"
    requests.give_back(backend, claim.lease)
    held = judgements.get(backend, PROJECT, child_id)
    assert (held.is_held, held.num_judged) == (True, 5)
    assert judging.claim(backend, 60) is None
    resume(backend, rounds_id)
    assert play_to_end(backend, rounds_id).stop_reason is RoundsStopReason.ALL_ROUNDS
    assert judgements.get(backend, PROJECT, child_id).num_judged > 5


@pytest.mark.parametrize("stage", ["generate", "judge"])
def test_what_is_held_is_cancelled_with_its_rounds(backend: Backend, stage: str) -> None:
    rounds_id = create(backend).id
    child_id = child_of(advance_to(backend, rounds_id, stage), 1, stage)
    pause(backend, rounds_id)
    rounds.cancel(backend, PROJECT, rounds_id)
    progress.step(backend)
    child: Any = {"generate": generations, "judge": judgements}[stage].get(backend, PROJECT, child_id)
    assert (child.status, child.is_held) == ("cancelled", False)
    assert get(backend, rounds_id).finished_at is not None


@pytest.mark.parametrize(
    ("error", "bound", "told"),
    [(KeyError("x"), "MAX_SECONDS", LOG), (StoreUnavailable("It is away."), "MAX_OUTAGE_SECONDS", "It is away.")],
)
def test_what_nobody_expects_is_tried_for_a_time_and_then_ends_the_rounds(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, error: Exception, bound: str, told: str
) -> None:
    rounds_id = create(backend, num_rounds=1).id
    with monkeypatch.context() as patch:
        patch.setattr(progress.children, "start", Mock(side_effect=error))
        for _ in range(troubles.MIN_TRIES + 2):
            progress.step(backend)
        waiting = get(backend, rounds_id)
        assert (waiting.status, waiting.steps[0].error) == (RoundsStatus.RUNNING, f"{told} It is tried again.")
        patch.setattr(troubles, bound, 0.0)
        progress.step(backend)
    failed = get(backend, rounds_id)
    reason = f"{told} It was tried {troubles.MIN_TRIES + 3} times."
    assert (failed.status, failed.error) == (RoundsStatus.FAILED, f"Round 0, split: {reason}")
    assert (failed.steps[0].status, failed.steps[0].error) == (RoundStepStatus.FAILED, reason)
    resume(backend, rounds_id)
    assert play_to_end(backend, rounds_id).stop_reason is RoundsStopReason.ALL_ROUNDS


def test_troubles_that_pass_are_forgotten(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(troubles, "MAX_SECONDS", 0.0)
    rounds_id = create(backend, num_rounds=1).id
    advance_to(backend, rounds_id, "generate")
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(progress.children, "look", Mock(side_effect=KeyError("x")))
            for _ in range(troubles.MIN_TRIES - 1):
                progress.step(backend)
            assert LOG in str(get(backend, rounds_id).steps[1].error)
        progress.step(backend)
        found = get(backend, rounds_id)
        assert (found.status, found.steps[1].error) == (RoundsStatus.RUNNING, None)
    row = backend.database.read(lambda session: session.get_one(Rounds, rounds_id))
    assert (row.num_troubles, row.trouble_since) == (0, None)


def fail_by_trouble(backend: Backend) -> None:
    for _ in range(troubles.MIN_TRIES):
        progress.step(backend)


def test_what_is_under_way_is_cancelled_where_its_rounds_fail(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "MAX_SECONDS", 0.0)
    rounds_id = create(backend, num_rounds=1).id
    job_id = child_of(advance_to(backend, rounds_id, "train"), 1, "train")
    with monkeypatch.context() as patch:
        patch.setattr(progress.children, "look", Mock(side_effect=KeyError("x")))
        fail_by_trouble(backend)
    assert get(backend, rounds_id).status is RoundsStatus.FAILED
    assert jobs.get(backend, PROJECT, job_id).status is JobStatus.CANCELLED
    resume(backend, rounds_id)
    ended = play_to_end(backend, rounds_id)
    assert ended.stop_reason is RoundsStopReason.ALL_ROUNDS
    assert next(step for step in ended.steps if step.stage == "train").earlier_ids == [job_id]


def test_trouble_between_two_rounds_ends_them_too_and_they_go_on(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "MAX_SECONDS", 0.0)
    rounds_id = create(backend, num_rounds=2).id
    with monkeypatch.context() as patch:
        patch.setattr(Run, "next_stages", Mock(side_effect=AssertionError))
        while get(backend, rounds_id).status is RoundsStatus.RUNNING:
            progress.step(backend)
            play(backend)
    assert get(backend, rounds_id).error == f"{LOG} It was tried {troubles.MIN_TRIES} times."
    resume(backend, rounds_id)
    assert len(play_to_end(backend, rounds_id).rounds) == 2


def test_rounds_that_were_cancelled_end_so_whatever_is_in_the_way(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "MAX_SECONDS", 0.0)
    rounds_id = create(backend).id
    advance_to(backend, rounds_id, "generate")
    rounds.cancel(backend, PROJECT, rounds_id)
    monkeypatch.setattr(progress.children, "cancel", Mock(side_effect=KeyError("x")))
    fail_by_trouble(backend)
    ended = get(backend, rounds_id)
    assert (ended.status, ended.finished_at is not None) == (RoundsStatus.CANCELLED, True)
    assert {step.status.value for step in ended.steps} == {"succeeded", "cancelled"}


def test_two_requests_at_once_do_not_pass_the_bound(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one comes while the first has counted, and has not committed."""
    monkeypatch.setattr(rounds, "MAX_OPEN", 1)
    refused: list[Conflict] = []

    def ask() -> None:
        try:
            create(backend)
        except TooManyRounds as error:
            refused.append(error)

    second = threading.Thread(target=ask)

    def reach(_point: str) -> None:
        if second.ident is None:
            second.start()
            second.join(0.3)

    monkeypatch.setattr(rounds, "reach", reach)
    create(backend)
    second.join()
    assert len(refused) == 1
    assert len(rounds.list_page(backend, PROJECT).data) == 1
