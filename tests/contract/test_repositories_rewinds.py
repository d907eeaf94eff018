"""Metric points and their rewind, on both databases."""

import pytest
from backends import (
    PROJECT,
    add_dataset,
    checkpoint,
    claim,
    curve,
    lose,
    make_due,
    point,
    submit,
)

from core.domain.jobs.job_state import Stage
from core.services.attempts import lifecycle, recording
from core.services.backend import Backend
from core.services.curves import pages
from core.services.curves.pages import MetricsQuery
from core.services.jobs import events


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> str:
    return add_dataset(backend)


def test_points_are_numbered_in_order_and_kept_once(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    lifecycle.begin(held)
    recording.record_points(held, [point(1, 0.7), point(1, 0.6, split="validation"), point(2, 0.5)])
    recording.record_points(held, [point(2, 0.9), point(3, 0.4), point(3, 0.1)])
    recording.record_points(held, [])
    assert curve(backend, job_id) == [
        ("dpo", "train", 1, 0.7),
        ("dpo", "validation", 1, 0.6),
        ("dpo", "train", 2, 0.5),
        ("dpo", "train", 3, 0.4),
    ]


def test_values_that_are_not_finite_become_null(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    recording.record_points(held, [point(1, float("nan"), a=float("inf"), b=1.5)])
    assert pages.all_points(backend, PROJECT, job_id)[0].values == {"loss": None, "a": None, "b": 1.5}


def test_a_resume_takes_back_what_lies_beyond_its_checkpoint(backend: Backend) -> None:
    job_id = submit(backend).id
    first = claim(backend)
    assert lifecycle.begin(first) is None
    recording.record_points(first, [point(1, stage="sft"), point(1), point(2), point(3)])
    checkpoint(backend, first, 1)
    before = pages.page(backend, PROJECT, job_id, MetricsQuery())
    assert (before.last_seq, before.reset) == (4, False)
    lose(backend, first)

    second = claim(backend)
    resumed = lifecycle.begin(second)
    assert resumed is not None
    assert (resumed.stage, resumed.step) == (Stage.DPO, 1)
    assert lifecycle.begin(second) == resumed
    kept = [("sft", "train", 1, 0.5), ("dpo", "train", 1, 0.5)]
    assert curve(backend, job_id) == kept

    after = pages.page(backend, PROJECT, job_id, MetricsQuery(after=before.last_seq))
    assert after.reset is True
    assert [found.step for found in after.points] == [1, 1]
    calm = pages.page(backend, PROJECT, job_id, MetricsQuery(after=after.last_seq))
    assert (calm.reset, calm.points, calm.has_more) == (False, [], False)

    recording.record_points(second, [point(2), point(3)])
    new = pages.page(backend, PROJECT, job_id, MetricsQuery(after=calm.last_seq))
    assert (new.reset, [found.step for found in new.points]) == (False, [2, 3])
    assert curve(backend, job_id) == [*kept, ("dpo", "train", 2, 0.5), ("dpo", "train", 3, 0.5)]


def test_a_rewind_to_the_start_is_seen_although_nothing_is_left(backend: Backend) -> None:
    job_id = submit(backend).id
    first = claim(backend)
    recording.record_points(first, [point(1), point(2)])
    lose(backend, first)
    make_due(backend)
    lifecycle.begin(claim(backend))
    page = pages.page(backend, PROJECT, job_id, MetricsQuery(after=2))
    assert (page.reset, page.points) == (True, [])


def test_a_replayed_step_that_differs_is_told_once(backend: Backend) -> None:
    job_id = submit(backend).id
    first = claim(backend)
    lifecycle.begin(first)
    replayed = [point(step, 0.5, tokens_per_second=100.0, peak_memory_bytes=step) for step in (1, 2, 3, 4)]
    recording.record_points(first, replayed)
    checkpoint(backend, first, 1)
    lose(backend, first)

    second = claim(backend)
    lifecycle.begin(second)
    recording.record_points(second, [point(2, 0.5, tokens_per_second=7.0, peak_memory_bytes=9.0)])
    assert "resume_divergence" not in [event.kind for event in events.list_events(backend, PROJECT, job_id)]
    recording.record_points(second, [point(3, 0.5000001, tokens_per_second=7.0)])
    recording.record_points(second, [point(4, 0.6, tokens_per_second=7.0)])
    told = [event for event in events.list_events(backend, PROJECT, job_id) if event.kind == "resume_divergence"]
    assert [(event.level, event.data["step"]) for event in told] == [("warning", 3)]
    assert told[0].data["before"]["loss"] == 0.5
    assert told[0].data["after"]["loss"] == 0.5000001


def test_rewound_values_survive_a_second_crash_before_they_are_replayed(backend: Backend) -> None:
    job_id = submit(backend).id
    first = claim(backend)
    recording.record_points(first, [point(1), point(2), point(3)])
    checkpoint(backend, first, 1)
    lose(backend, first)
    second = claim(backend)
    lifecycle.begin(second)
    recording.record_points(second, [point(2)])
    lose(backend, second)
    make_due(backend)
    third = claim(backend)
    lifecycle.begin(third)
    recording.record_points(third, [point(2), point(3, 0.9)])
    kinds = [event.kind for event in events.list_events(backend, PROJECT, job_id)]
    assert kinds.count("resume_divergence") == 1
