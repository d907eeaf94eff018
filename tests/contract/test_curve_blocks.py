"""Charts of long runs: what is chosen from blocks of steps keeps what a look at every point would keep."""

import math

from backends import PROJECT, add_dataset, checkpoint, claim, point, submit
from sqlalchemy import delete, select

from core.database.tables.records import MetricBlock
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import AttemptOutcome
from core.domain.trainer_protocol import MetricPoint
from core.services.attempts import lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.backend import Backend
from core.services.curves import pages
from core.services.curves.blocks import MAX_POINTS_READ
from core.services.curves.pages import MetricsQuery
from core.services.jobs import repeats
from core.services.views import MetricPointView

MAX_POINTS = 60
NAMES = ("loss", "other")


def wave(steps: range, split: str = "train") -> list[MetricPoint]:
    """Two curves with one highest and one lowest point each, at steps that no other rule would choose."""
    made = []
    for step in steps:
        loss = 50.0 if step == 777 else -50.0 if step == 1234 else math.sin(step / 9)
        other = 9.0 if step == 333 else math.nan if step % 5 == 0 else math.cos(step / 7)
        made.append(point(step, loss, split=split, other=other))
    return made


def learn(backend: Backend, held: ClaimedJob, steps: range) -> None:
    for begin in range(steps.start, steps.stop, 100):
        recording.record_points(held, wave(range(begin, min(begin + 100, steps.stop))))


def chart(backend: Backend, job_id: str, **fields: object) -> list[MetricPointView]:
    query = MetricsQuery(**{"max_points": MAX_POINTS} | fields)  # type: ignore[arg-type]
    return pages.page(backend, PROJECT, job_id, query).points


def block_ends(backend: Backend, job_id: str) -> list[int]:
    chosen = select(MetricBlock.step).where(MetricBlock.job_id == job_id, MetricBlock.split == "train")
    return backend.database.read(lambda session: list(session.scalars(chosen.order_by(MetricBlock.step))))


def require_faithful(backend: Backend, job_id: str) -> None:
    """Every curve's ends and extremes are there, as a look at every point finds them, and no more than asked for."""
    everything = pages.all_points(backend, PROJECT, job_id)
    for names in ((), NAMES, ("other",)):
        shown = chart(backend, job_id, names=names)
        assert MAX_POINTS // 2 <= len(shown) <= MAX_POINTS
        assert [found.seq for found in shown] == sorted({found.seq for found in shown})
        steps = {found.step for found in shown if found.split == "train"}
        trained = [found.step for found in everything if found.split == "train"]
        assert {trained[0], trained[-1]} <= steps
        for name in names or NAMES:
            values = [value for found in everything if (value := found.values.get(name)) is not None]
            seen = [value for found in shown if (value := found.values.get(name)) is not None]
            assert (min(seen), max(seen)) == (min(values), max(values)), name


def test_a_long_curve_keeps_its_ends_and_every_extreme(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    learn(backend, held, range(1, 2050))
    recording.record_points(held, wave(range(100, 2001, 100), "validation"))

    assert block_ends(backend, job_id) == list(range(31, 2048, 32)), "every whole block, and the one at work is not"
    require_faithful(backend, job_id)
    shown = chart(backend, job_id)
    assert {found.split for found in shown} == {"train", "validation"}
    assert {found.split for found in chart(backend, job_id, split="validation")} == {"validation"}
    assert {1234, 777, 333} <= {found.step for found in shown}


def test_a_rewind_forgets_the_blocks_beyond_and_the_replay_makes_them_again(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    lifecycle.begin(held)
    learn(backend, held, range(1, 1500))
    checkpoint(backend, held, 1000)
    with_blocks = block_ends(backend, job_id)
    lifecycle.release(held, AttemptOutcome.DRAINED)

    again = claim(backend)
    lifecycle.begin(again)
    assert block_ends(backend, job_id) == [end for end in with_blocks if end <= 1000]
    require_faithful(backend, job_id)
    learn(backend, again, range(1001, 1500))
    assert block_ends(backend, job_id) == with_blocks
    require_faithful(backend, job_id)


def test_a_point_that_comes_late_is_seen(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    learn(backend, held, range(1, 500))
    learn(backend, held, range(501, 1200))
    recording.record_points(held, [point(500, 99.0)])
    assert max(found.values["loss"] or 0 for found in chart(backend, job_id)) == 99.0
    learn(backend, held, range(1200, 1500))
    require_faithful(backend, job_id)


def test_a_run_without_blocks_gets_them_while_it_goes_on(backend: Backend) -> None:
    """As one that began before there were any."""
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    learn(backend, held, range(1, 3000))
    with_blocks = block_ends(backend, job_id)
    backend.database.write(lambda session: session.execute(delete(MetricBlock)))
    require_faithful(backend, job_id)
    for step in range(3000, 3000 + 2 + 3000 // MAX_POINTS_READ):
        learn(backend, held, range(step, step + 1))
        require_faithful(backend, job_id)
    assert block_ends(backend, job_id)[: len(with_blocks)] == with_blocks


def test_a_retried_job_takes_the_blocks_of_its_curve_along(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    lifecycle.begin(held)
    learn(backend, held, range(1, 1500))
    checkpoint(backend, held, 1400)
    lifecycle.finish_failed(held, FailureCode.DISK_FULL, "gone")
    retried = repeats.retry(backend, PROJECT, job_id).id
    assert block_ends(backend, retried) == [end for end in block_ends(backend, job_id) if end <= 1400]
    require_faithful(backend, retried)
