"""Successive halving over a real database: who goes on, in what order, whatever dies, and what is told of it."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from backends import PROJECT, add_dataset, claim, point, publication

from core.domain.errors import InvalidRequest
from core.domain.halving import best_first, plan_rungs, work_share
from core.domain.jobs.job_state import JobStatus
from core.domain.sweeps import SweepRequest, SweepStatus
from core.services.attempts import lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.backend import Backend
from core.services.jobs import events as job_events
from core.services.jobs import jobs, steering
from core.services.jobs.steering import JobNotResumable
from core.services.sweeps import events, halving, previews, progress, sweeps
from core.services.sweeps.view import MemberView, SweepView

BETAS = [0.05, 0.1, 0.3, 0.4]
"""By accuracy the third is the best, then the fourth, the second, the first."""
BEST = 0.3


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> None:
    add_dataset(backend)


def request_of(betas: Iterable[float] = BETAS, job: dict[str, Any] | None = None, **fields: Any) -> SweepRequest:
    body = {"base_model": "tiny", "dataset_id": "ds_1", "reuse": False} | (job or {})
    values = {"job": body, "grid": {"beta": [*betas]}, "strategy": "successive_halving", "halving": {"eta": 2}}
    return SweepRequest.model_validate(values | fields)


def create(backend: Backend, betas: Iterable[float] = BETAS, **fields: Any) -> str:
    sweep_id = sweeps.create(backend, PROJECT, request_of(betas, **fields)).id
    progress.advance(backend, sweep_id)
    return sweep_id


def get(backend: Backend, sweep_id: str) -> SweepView:
    return sweeps.get(backend, PROJECT, sweep_id)


def by_beta(backend: Backend, sweep_id: str) -> dict[float, MemberView]:
    return {member.overrides["beta"]: member for member in get(backend, sweep_id).members}


def accuracy(held: ClaimedJob) -> float:
    """The nearer its beta to the best one, the better a member is."""
    return float(1 - abs(held.spec["beta"] - BEST))


def run_next(backend: Backend) -> tuple[float, float | None]:
    """Run the next job to where it pauses, or to its end; return its beta and the share at which it paused."""
    held = claim(backend)
    lifecycle.begin(held)
    share = held.pause_at_share
    step = round(100 * (share or 1.0))
    values = {"rewards/accuracies": accuracy(held)}
    recording.record_points(held, [point(step, split="validation", **values)])
    if share is not None:
        lifecycle.finish_at_rung(held)
    else:
        results = {"step": step, "held_out": {"reward_accuracy": {"value": accuracy(held), "low": None, "high": None}}}
        lifecycle.finish_succeeded(held, replace(publication(backend, held), results=results))
    return held.spec["beta"], share


def decisions(backend: Backend, sweep_id: str) -> list[dict[str, Any]]:
    found = events.list_events(backend, PROJECT, sweep_id, limit=100)
    return [event.data for event in found if event.kind == halving.RUNG_DECIDED]


def test_rungs_leave_one_member_and_none_lies_before_the_least_share() -> None:
    assert plan_rungs(8, 2, 0.1) == [1 / 8, 1 / 4, 1 / 2]
    assert plan_rungs(9, 3, 0.1) == plan_rungs(8, 3, 0.1) == [1 / 9, 1 / 3]
    assert plan_rungs(256, 2, 0.2) == [1 / 4, 1 / 2]
    assert plan_rungs(1, 3, 0.1) == []
    assert work_share(8, 2, [1 / 8, 1 / 4, 1 / 2]) == pytest.approx((1 + 0.5 + 0.5 + 0.5) / 8)
    assert work_share(8, 3, []) == 1
    assert best_first([0.2, None, 0.9, 0.9], "rewards/accuracies") == [2, 3, 0, 1]
    assert best_first([0.2, None, 0.9], "loss") == [0, 2, 1]


def test_the_best_half_goes_on_at_each_rung_and_the_best_of_all_is_named(backend: Backend) -> None:
    sweep_id = create(backend, max_parallel=2)
    view = get(backend, sweep_id)
    assert view.halving is not None
    assert view.halving.rungs == [0.25, 0.5]
    ran = []
    for _ in range(7):
        counts = get(backend, sweep_id).counts
        assert counts.get("queued", 0) + counts.get("running", 0) <= 2
        ran.append(run_next(backend))
        progress.step(backend)
    assert ran == [*((beta, 0.25) for beta in BETAS), (0.3, 0.5), (0.4, 0.5), (BEST, None)]
    ended = get(backend, sweep_id)
    assert (ended.status, ended.counts) == (SweepStatus.FINISHED, {"succeeded": 1, "cancelled": 3})
    members = by_beta(backend, sweep_id)
    assert ended.best_job_id == members[BEST].job_id
    assert [beta for beta, member in members.items() if member.is_dropped] == [0.05, 0.1, 0.4]
    assert [len(member.rungs) for member in members.values()] == [1, 1, 2, 2]
    first, second = decisions(backend, sweep_id)
    assert [(item["position"], item["goes_on"]) for item in first["members"]] == [
        (3, True),
        (4, True),
        (2, False),
        (1, False),
    ]
    assert [(item["position"], item["step"], item["goes_on"]) for item in second["members"]] == [
        (3, 50, True),
        (4, 50, False),
    ]
    told = job_events.list_events(backend, PROJECT, members[0.05].job_id)
    assert [event.kind for event in told][-2:] == ["dropped", "cancelled"]
    assert "at step 25 is place 4 of 4, and 2 go on" in told[-2].message
    kinds = [event.kind for event in events.list_events(backend, PROJECT, sweep_id, limit=100)]
    assert kinds == ["created", "rung_decided", "rung_decided", "ended"]


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("place", ["sweep.rung_in_transaction", "sweep.rung_decided", "sweep.member_let_go_on"])
def test_a_process_that_dies_anywhere_decides_the_same_and_once(
    backend: Backend, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_id = create(backend)
    struck: list[str] = []

    def die_once_at_each_pass(name: str) -> None:
        if name == place and len(struck) < 5:
            struck.append(name)
            raise Killed

    for module in (halving, progress):
        monkeypatch.setattr(module, "reach", die_once_at_each_pass)
    for _ in range(30):
        with suppress(Killed):
            progress.step(backend)
        if get(backend, sweep_id).counts.get("queued"):
            run_next(backend)
    assert struck
    ended = get(backend, sweep_id)
    assert (ended.status, ended.counts) == (SweepStatus.FINISHED, {"succeeded": 1, "cancelled": 3})
    assert ended.best_job_id == by_beta(backend, sweep_id)[BEST].job_id
    assert len(decisions(backend, sweep_id)) == 2


def run_to_rung(backend: Backend, number: int) -> None:
    """Run so many jobs, one after the other."""
    for _ in range(number):
        run_next(backend)
        progress.step(backend)


def test_a_member_at_a_rung_cannot_be_resumed_alone_but_be_cancelled(backend: Backend) -> None:
    sweep_id = create(backend)
    run_to_rung(backend, 3)
    waiting = by_beta(backend, sweep_id)
    assert get(backend, sweep_id).counts == {"paused": 3, "queued": 1}
    with pytest.raises(JobNotResumable, match="cancel it and retry it"):
        steering.resume(backend, PROJECT, waiting[0.1].job_id)
    steering.cancel(backend, PROJECT, waiting[BEST].job_id)
    run_to_rung(backend, 1)
    (decided,) = decisions(backend, sweep_id)
    assert [item["position"] for item in decided["members"]] == [4, 2, 1], "the cancelled one is out"
    run_to_rung(backend, 3)
    assert get(backend, sweep_id).best_job_id == waiting[0.4].job_id


def test_a_paused_sweep_decides_nothing_and_leaves_members_at_their_rung(backend: Backend) -> None:
    sweep_id = create(backend)
    run_to_rung(backend, 2)
    sweeps.set_status(backend, PROJECT, sweep_id, SweepStatus.PAUSED)
    progress.step(backend)
    assert get(backend, sweep_id).counts == {"paused": 4}
    sweeps.set_status(backend, PROJECT, sweep_id, SweepStatus.RUNNING)
    progress.step(backend)
    assert get(backend, sweep_id).counts == {"paused": 2, "queued": 2}
    run_to_rung(backend, 2)
    assert get(backend, sweep_id).counts == {"queued": 2, "cancelled": 2}


def test_a_cancelled_sweep_cancels_members_at_a_rung(backend: Backend) -> None:
    sweep_id = create(backend, max_parallel=1)
    run_to_rung(backend, 2)
    sweeps.set_status(backend, PROJECT, sweep_id, SweepStatus.CANCELLED)
    progress.step(backend)
    ended = get(backend, sweep_id)
    assert (ended.counts, ended.finished_at is not None) == ({"cancelled": 3, "waiting": 1}, True)
    assert decisions(backend, sweep_id) == []


def test_members_that_come_later_are_compared_with_those_before(backend: Backend) -> None:
    sweep_id = create(backend, [0.05, 0.1])
    run_to_rung(backend, 3)
    assert get(backend, sweep_id).status is SweepStatus.FINISHED
    sweeps.extend(backend, PROJECT, sweep_id, [{"beta": 0.01}, {"beta": BEST}])
    progress.step(backend)
    run_to_rung(backend, 3)
    ended = get(backend, sweep_id)
    assert (ended.status, ended.counts) == (SweepStatus.FINISHED, {"succeeded": 2, "cancelled": 2})
    members = by_beta(backend, sweep_id)
    assert (members[0.01].is_dropped, members[BEST].job_id) == (True, ended.best_job_id)
    newest = decisions(backend, sweep_id)[-1]["members"]
    assert [(item["position"], item["is_new"]) for item in newest] == [(4, True), (2, False), (1, False), (3, True)]


def test_without_values_all_members_go_on_and_that_is_told(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no held-out row can be used."""
    monkeypatch.setattr(halving.rows, "newest_validation", lambda session, job_id: None)
    sweep_id = create(backend, [0.05, 0.1])
    run_to_rung(backend, 2)
    assert get(backend, sweep_id).counts == {"queued": 2}
    (told,) = [event for event in events.list_events(backend, PROJECT, sweep_id, limit=9) if event.level == "warning"]
    assert "no member has a value of rewards/accuracies" in told.message


def test_halving_needs_rows_that_are_held_out_and_all_says_that_none_will_be_the_best(backend: Backend) -> None:
    nothing = {"validation_fraction": 0}
    for make in (sweeps.create, previews.preview):
        with pytest.raises(InvalidRequest, match="validation_fraction above 0") as refused:
            make(backend, PROJECT, request_of(job=nothing))
        assert refused.value.errors[0].pointer == "/job/validation_fraction"
    asked = request_of(job=nothing, strategy="all", halving=None)
    assert "none can be named the best" in (previews.preview(backend, PROJECT, asked).no_best_reason or "")
    made = sweeps.create(backend, PROJECT, asked)
    assert "none can be named the best" in (made.no_best_reason or "")
    sweep_id = create(backend)
    assert get(backend, sweep_id).no_best_reason is None
    with pytest.raises(InvalidRequest, match="member 5 holds no rows out"):
        sweeps.extend(backend, PROJECT, sweep_id, [{"beta": 0.7, "validation_fraction": 0}])
    with pytest.raises(ValueError, match="goes with"):
        request_of(strategy="all")


def test_a_preview_tells_the_rungs_and_what_they_save(backend: Backend) -> None:
    shown = previews.preview(backend, PROJECT, request_of())
    assert (shown.rungs, shown.work_share) == ([0.25, 0.5], (4 * 0.25 + 2 * 0.25 + 1 * 0.5) / 4)
    plain = previews.preview(backend, PROJECT, request_of(strategy="all", halving=None))
    assert (plain.rungs, plain.work_share) == ([], 1.0)


def test_one_at_a_rung_keeps_no_other_from_making_what_it_could_not_store(backend: Backend) -> None:
    sweep_id = create(backend, job={"reuse": True})
    assert get(backend, sweep_id).counts == {"queued": 1, "waiting": 3}
    run_next(backend)
    progress.step(backend)
    assert get(backend, sweep_id).counts == {"paused": 1, "queued": 1, "waiting": 2}


def test_a_job_whose_worker_vanishes_at_a_rung_pauses_there_again(backend: Backend) -> None:
    sweep_id = create(backend, [0.1, 0.3])
    held = claim(backend)
    lifecycle.release(held, lifecycle.AttemptOutcome.DRAINED)
    again = claim(backend)
    assert (again.job_id, again.pause_at_share) == (held.job_id, 0.5)
    lifecycle.finish_at_rung(again)
    lifecycle.finish_at_rung(again)  # the answer to the first was lost
    assert jobs.get(backend, PROJECT, held.job_id).status is JobStatus.PAUSED
    assert get(backend, sweep_id).counts == {"paused": 1, "queued": 1}
