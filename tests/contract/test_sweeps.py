"""Sweeps over a real database: members, their bound, what happens when the process dies, steering, extension."""

from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from backends import PROJECT, add_dataset, claim, publication, submit
from pydantic import ValidationError
from sqlalchemy import text

from core.database.columns import database_now
from core.database.tables.objects import StageOutput
from core.database.tables.sweeps import Sweep
from core.domain.errors import InvalidRequest
from core.domain.estimates.speeds import Interval
from core.domain.jobs.job_queries import JobFilter
from core.domain.jobs.job_state import JobStatus, Stage
from core.domain.sweeps import Range, SweepRequest, SweepStatus
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.jobs import jobs, steering
from core.services.operations.sweep import Sweeper
from core.services.sweeps import previews, progress, sweeps
from core.services.sweeps.sweeps import SweepEnded, SweepNotDeletable, SweepNotFound, SweepView

BETAS = [0.05, 0.1, 0.3, 0.5]
BEST = 0.3


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> None:
    add_dataset(backend)


def request_of(**fields: Any) -> SweepRequest:
    job = {"base_model": "tiny", "dataset_id": "ds_1", "reuse": False}
    values = {"job": job, "grid": {"beta": BETAS}} | fields
    return SweepRequest.model_validate(values)


def create(backend: Backend, **fields: Any) -> SweepView:
    view = sweeps.create(backend, PROJECT, request_of(**fields))
    progress.advance(backend, view.id)
    return get(backend, view.id)


def get(backend: Backend, sweep_id: str) -> SweepView:
    return sweeps.get(backend, PROJECT, sweep_id)


def finish_next(backend: Backend) -> str:
    """Run the next job to its end: the nearer its beta to the best one, the better it is."""
    held = claim(backend)
    lifecycle.begin(held)
    accuracy = 1 - abs(held.spec["beta"] - BEST)
    results = {"step": 1, "held_out": {"reward_accuracy": {"value": accuracy, "low": None, "high": None}}}
    lifecycle.finish_succeeded(held, replace(publication(backend, held), results=results))
    return held.job_id


def num_jobs(backend: Backend, sweep_id: str) -> int:
    where = JobFilter(metadata={"sweep": sweep_id})
    return len(jobs.list_page(backend, PROJECT, where, limit=100).data)


def test_members_are_queued_within_the_bound_and_the_best_one_is_named(backend: Backend) -> None:
    sweep = create(backend, max_parallel=2)
    assert sweep.counts == {"queued": 2, "waiting": 2}
    assert [member.overrides for member in sweep.members] == [{"beta": beta} for beta in BETAS]
    for _ in BETAS:
        assert num_jobs(backend, sweep.id) <= 4
        live = get(backend, sweep.id).counts
        assert live.get("queued", 0) + live.get("running", 0) <= 2
        finish_next(backend)
        progress.step(backend)
    ended = get(backend, sweep.id)
    assert (ended.status, ended.counts) == (SweepStatus.FINISHED, {"succeeded": 4})
    best = next(member for member in ended.members if member.job_id == ended.best_job_id)
    assert best.overrides == {"beta": BEST}
    assert best.value == 1.0
    assert jobs.get(backend, PROJECT, best.job_id).requested["beta"] == BEST


def make_output(backend: Backend, job_id: str, stage: Stage) -> None:
    output = StageOutput(
        project_id=PROJECT, digest=stage.value.ljust(64, "0"), stage=stage, job_id=job_id, attempt=1, prefix="p/",
        manifest_sha256="0" * 64, num_bytes=1, created_at=database_now(),
    )  # fmt: skip
    backend.database.write(lambda session: session.add(output))


def test_one_member_computes_what_is_shared_before_the_others_are_queued(backend: Backend) -> None:
    """Two seeds share nothing with each other; within a seed all betas do."""
    job = {"base_model": "tiny", "dataset_id": "ds_1"}
    sweep = create(backend, job=job, grid={"seed": [0, 1], "beta": [0.1, 0.3, 0.5]}, max_parallel=5)

    def statuses() -> list[str]:
        progress.step(backend)
        return [member.status for member in get(backend, sweep.id).members]

    first, second = sweep.members[0].job_id, sweep.members[3].job_id
    assert statuses() == ["queued", "waiting", "waiting"] * 2
    make_output(backend, first, Stage.SFT)
    assert statuses() == ["queued", "waiting", "waiting"] * 2, "the reference is not there yet"
    make_output(backend, first, Stage.REFERENCE)
    assert statuses() == ["queued"] * 4 + ["waiting"] * 2
    steering.cancel(backend, PROJECT, second)
    assert statuses()[3:] == ["cancelled", "queued", "waiting"], "its builder has ended, so the next one builds"


def test_a_repeated_creation_finds_the_sweep(backend: Backend) -> None:
    first = sweeps.create(backend, PROJECT, request_of(), sweep_id="sweep_1")
    again = sweeps.create(backend, PROJECT, request_of(), sweep_id="sweep_1")
    assert [member.job_id for member in again.members] == [member.job_id for member in first.members]


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("place", ["sweep.member_submitted", "sweep.member_noted", "sweep.ended"])
def test_a_process_that_dies_anywhere_makes_no_second_job(
    backend: Backend, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_id = sweeps.create(backend, PROJECT, request_of(max_parallel=2)).id

    def die(name: str) -> None:
        if name == place:
            raise Killed

    for _ in range(20):
        with monkeypatch.context() as patch:
            patch.setattr(progress, "reach", die)
            with suppress(Killed):
                progress.step(backend)
        if get(backend, sweep_id).counts.get("queued"):
            finish_next(backend)
    progress.step(backend)
    ended = get(backend, sweep_id)
    assert (ended.status, ended.counts) == (SweepStatus.FINISHED, {"succeeded": 4})
    assert num_jobs(backend, sweep_id) == 4
    assert ended.best_job_id == ended.members[BETAS.index(BEST)].job_id


def test_a_process_that_dies_while_it_creates_leaves_nothing(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(name: str) -> None:
        assert name == "sweep.in_transaction"
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "reach", die)
        with pytest.raises(Killed):
            sweeps.create(backend, PROJECT, request_of(), sweep_id="sweep_1")
    with pytest.raises(SweepNotFound):
        sweeps.get(backend, PROJECT, "sweep_1")
    assert sweeps.create(backend, PROJECT, request_of(), sweep_id="sweep_1").id == "sweep_1"


def test_cancel_ends_all_members_and_queues_no_more(backend: Backend) -> None:
    sweep = create(backend, max_parallel=2)
    running = claim(backend)
    view, is_changed = sweeps.set_status(backend, PROJECT, sweep.id, SweepStatus.CANCELLED)
    assert is_changed
    progress.step(backend)
    assert get(backend, sweep.id).counts == {"running": 1, "cancelled": 1, "waiting": 2}
    lifecycle.finish_cancelled(running)
    progress.step(backend)
    ended = get(backend, sweep.id)
    assert (ended.status, ended.counts) == (SweepStatus.CANCELLED, {"cancelled": 2, "waiting": 2})
    assert ended.finished_at is not None
    assert not sweeps.set_status(backend, PROJECT, sweep.id, SweepStatus.CANCELLED)[1]
    with pytest.raises(SweepEnded):
        sweeps.set_status(backend, PROJECT, view.id, SweepStatus.RUNNING)


@pytest.mark.parametrize("status", [SweepStatus.CANCELLED, SweepStatus.PAUSED])
def test_a_sweep_that_is_cancelled_while_members_are_queued_queues_no_further_one(
    backend: Backend, status: SweepStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_id = sweeps.create(backend, PROJECT, request_of(max_parallel=4)).id

    def steer_once(name: str) -> None:
        if name == "sweep.member_noted" and sweeps.set_status(backend, PROJECT, sweep_id, status)[1]:
            progress.advance(backend, sweep_id)

    monkeypatch.setattr(progress, "reach", steer_once)
    progress.advance(backend, sweep_id)
    assert get(backend, sweep_id).counts == {status.value: 1, "waiting": 3}
    assert (get(backend, sweep_id).finished_at is not None) == (status is SweepStatus.CANCELLED)


def test_a_paused_sweep_resumes_what_it_has_paused_and_nothing_else(backend: Backend) -> None:
    sweep = create(backend, max_parallel=3)
    by_user, *others = (member.job_id for member in sweep.members[:3])
    steering.pause(backend, PROJECT, by_user)
    sweeps.set_status(backend, PROJECT, sweep.id, SweepStatus.PAUSED)
    progress.step(backend)
    assert get(backend, sweep.id).counts == {"paused": 3, "waiting": 1}
    sweeps.set_status(backend, PROJECT, sweep.id, SweepStatus.RUNNING)
    progress.step(backend)
    assert jobs.get(backend, PROJECT, by_user).status is JobStatus.PAUSED
    assert {jobs.get(backend, PROJECT, job_id).status for job_id in others} == {JobStatus.QUEUED}


def test_a_finished_sweep_goes_on_with_further_members_each_once(backend: Backend) -> None:
    sweep = create(backend, grid={"beta": [0.1]})
    finish_next(backend)
    progress.step(backend)
    assert get(backend, sweep.id).status is SweepStatus.FINISHED
    for is_new in (True, False):
        assert sweeps.extend(backend, PROJECT, sweep.id, [{"beta": BEST}, {"beta": 0.1}])[1] is is_new
    progress.step(backend)
    assert get(backend, sweep.id).counts == {"succeeded": 1, "queued": 1}
    best = finish_next(backend)
    progress.step(backend)
    assert (get(backend, sweep.id).best_job_id, get(backend, sweep.id).num_members) == (best, 2)


def test_a_faulty_member_is_named_and_nothing_is_made(backend: Backend) -> None:
    for grid in ({"beta": [0.1, -1]}, {"variant": ["dpo", "dpo2"]}, {"dpo/epochs": [1, 0]}):
        with pytest.raises(InvalidRequest, match=r"[mM]ember 2"):
            sweeps.create(backend, PROJECT, request_of(grid=grid))
    with pytest.raises(InvalidRequest, match="bet: Extra"):
        sweeps.create(backend, PROJECT, request_of(grid={"bet": [1]}))
    with pytest.raises(InvalidRequest, match="256 members"):
        sweeps.create(backend, PROJECT, request_of(grid={"seed": [*range(20)], "beta": [n / 9 for n in range(1, 20)]}))
    assert sweeps.list_page(backend, PROJECT).data == []


def test_a_member_that_can_no_longer_be_submitted_is_refused_with_its_reason(backend: Backend) -> None:
    add_dataset(backend, "ds_2")
    sweep = create(backend, grid={"dataset_id": ["ds_1", "ds_2"]}, max_parallel=1)
    backend.database.write(lambda session: session.execute(text("DELETE FROM datasets WHERE id = 'ds_2'")))
    finish_next(backend)
    progress.step(backend)
    progress.step(backend)
    ended = get(backend, sweep.id)
    assert (ended.status, ended.counts) == (SweepStatus.FINISHED, {"succeeded": 1, "refused": 1})
    assert "ds_2" in (ended.members[1].error or "")


def test_metadata_leaves_room_for_the_sweeps_own_key(backend: Backend) -> None:
    job = {"base_model": "tiny", "dataset_id": "ds_1"}
    keys = {f"key{number}": "x" for number in range(32)}
    with pytest.raises(InvalidRequest, match="at most 31 keys"):
        sweeps.create(backend, PROJECT, request_of(job=job | {"metadata": keys}))
    for fields in ({"job": job | {"metadata": {"sweep": "mine"}}}, {"grid": {"metadata/sweep": ["mine"]}}):
        with pytest.raises(InvalidRequest, match="choose another name"):
            sweeps.create(backend, PROJECT, request_of(**fields))
    del keys["key31"]
    sweep = create(backend, job=job | {"metadata": keys}, max_parallel=1)
    assert jobs.get(backend, PROJECT, sweep.members[0].job_id).metadata == keys | {"sweep": sweep.id}
    with pytest.raises(InvalidRequest, match="at most 31 keys"):
        sweeps.extend(backend, PROJECT, sweep.id, [{"metadata/other": "x"}])


def test_a_sweep_that_fails_holds_up_no_newer_one(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, refused, newer = (sweeps.create(backend, PROJECT, request_of()).id for _ in range(3))
    job = {"base_model": "tiny", "dataset_id": "ds_1", "from_another_release": 1}
    backend.database.write(lambda session: setattr(session.get(Sweep, refused), "requested", {"job": job}))
    submit_job = jobs.submit

    def fail_for_one(*args: Any, **kwargs: Any) -> Any:
        if args[2].metadata["sweep"] == broken:
            raise RuntimeError("unforeseen")
        return submit_job(*args, **kwargs)

    monkeypatch.setattr(jobs, "submit", fail_for_one)
    progress.step(backend)
    assert get(backend, broken).counts == {"waiting": 4}
    assert get(backend, newer).counts == {"queued": 4}
    ended = get(backend, refused)
    assert (ended.status, ended.counts) == (SweepStatus.FINISHED, {"refused": 4})
    assert "not valid any more" in (ended.members[0].error or "")


def test_sweeps_that_wait_keep_no_newer_one_from_its_turn(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_SWEEPS", 2)
    paused = [sweeps.create(backend, PROJECT, request_of()).id for _ in range(2)]
    for sweep_id in paused:
        sweeps.set_status(backend, PROJECT, sweep_id, SweepStatus.PAUSED)
    newer = sweeps.create(backend, PROJECT, request_of()).id
    sweeper = Sweeper(backend)
    sweeper.sweep()
    assert get(backend, newer).counts == {"waiting": 4}
    sweeper.sweep()
    assert get(backend, newer).counts == {"queued": 4}
    sweeps.set_status(backend, PROJECT, paused[0], SweepStatus.RUNNING)
    sweeper.sweep()
    assert get(backend, paused[0]).counts == {"queued": 4}, "and begins anew behind the newest"


def test_members_are_compared_by_what_their_method_measures(backend: Backend) -> None:
    job = {"base_model": "tiny", "dataset_id": "ds_1", "method": "supervised"}
    sweep = create(backend, job=job, grid={"seed": [0, 1]})
    assert (sweep.metric, create(backend).metric) == ("mean_token_accuracy", "rewards/accuracies")
    for fields in ({"metric": "rewards/margins"}, {"grid": {"method": ["supervised", "preference"]}}):
        with pytest.raises(InvalidRequest, match=r"member \d: .* use loss or") as refused:
            sweeps.create(backend, PROJECT, request_of(**{"job": job, "grid": {"seed": [0]}} | fields))
        assert refused.value.errors[0].pointer == "/metric"
    with pytest.raises(InvalidRequest, match="member 3: mean_token_accuracy is not measured"):
        sweeps.extend(backend, PROJECT, sweep.id, [{"method": "preference"}])


def test_the_time_of_all_is_bounded_by_whole_jobs() -> None:
    one, three = [Interval(low=10, high=40)], [Interval(low=10, high=40)] * 3
    assert previews.time_of_all(three, 1, is_shared=False) == Interval(low=30, high=120)
    assert previews.time_of_all(one, 1, is_shared=False) == Interval(low=10, high=40)
    assert previews.time_of_all(three, 2, is_shared=False) == Interval(low=15, high=80), "two, then one"
    assert previews.time_of_all(three, 3, is_shared=True).high >= 80, "two wait for the first one's stages"


def test_ranges_have_bounds_that_can_be_drawn_from() -> None:
    for bound in (1.7e308, 2.0**54):
        with pytest.raises(ValidationError, match="less than or equal"):
            Range(low=0, high=bound, whole=True)
    assert abs(Range(low=-(2.0**53 - 1), high=2.0**53 - 1, whole=True).draw(Random(0))) < 2**53


def test_random_members_are_the_same_for_the_same_seed() -> None:
    values = {
        "beta": {"low": 0.01, "high": 1, "log": True},
        "lora/rank": [4, 8],
        "seed": {"low": 0, "high": 9, "whole": True},
    }
    drawn = [
        sweeps.plan_members(request_of(grid=None, random={"num_members": 6, "seed": seed, "values": values}))
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(0.01 <= member["beta"] <= 1 and member["lora/rank"] in (4, 8) for member in drawn[0])


def test_only_an_ended_sweep_is_deleted_and_its_jobs_stay(backend: Backend) -> None:
    sweep = create(backend, grid={"beta": [0.1]})
    with pytest.raises(SweepNotDeletable):
        sweeps.delete(backend, PROJECT, sweep.id)
    job_id = finish_next(backend)
    progress.step(backend)
    sweeps.delete(backend, PROJECT, sweep.id)
    assert jobs.get(backend, PROJECT, job_id).status is JobStatus.SUCCEEDED
    assert submit(backend).metadata == {}
