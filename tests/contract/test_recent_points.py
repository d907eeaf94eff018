"""Readers that share what was read of a curve get what each would read alone, to the byte; on both databases."""

import random
import threading

import orjson
import pytest
from backends import PROJECT, add_dataset, checkpoint, claim, lose, point, submit

from core.domain.errors import NotFound
from core.services.attempts import lifecycle, recording
from core.services.backend import Backend
from core.services.curves import pages as metrics
from core.services.curves import recent_points
from core.services.curves.pages import MetricsQuery
from core.services.curves.recent_points import Numbered, RecentPoints


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> str:
    return add_dataset(backend)


def test_every_cursor_gets_the_page_it_would_read_alone(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_points, "MAX_POINTS", 12)
    rng, recent = random.Random(0), RecentPoints()
    job_id = submit(backend).id
    held = claim(backend)
    lifecycle.begin(held)
    step = num_shared = 0
    for turn in range(12):
        new = range(step + 1, step + 1 + rng.randint(0, 7))
        recording.record_points(held, [point(each, 1 / each) for each in new])
        step = new.stop - 1
        if turn == 3:
            checkpoint(backend, held, step)
        if turn == 7:
            lose(backend, held)
            held = claim(backend)
            resumed = lifecycle.begin(held)
            assert resumed is not None
            step = resumed.step
        newest = metrics.page(backend, PROJECT, job_id, MetricsQuery()).last_seq
        cursors = list(range(newest + 3))
        rng.shuffle(cursors)
        for after in cursors:
            for query in (MetricsQuery(after=after), MetricsQuery(after=after, limit=2)):
                head = metrics.look(backend, recent, PROJECT, job_id)
                found = metrics.shared_page(recent, job_id, head, query)
                if found is not None:
                    assert found == metrics.json_page(backend, PROJECT, job_id, query), (turn, query)
                    num_shared += b'"points":[{' in found
    assert num_shared > 50


def test_followers_of_a_job_read_its_points_once(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, held = submit(backend).id, claim(backend)
    recording.record_points(held, [point(1)])
    reads: list[int] = []
    list_points = metrics.metric_rows.list_points

    def counted(*arguments: object, **options: object) -> object:
        reads.append(1)
        return list_points(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(metrics.metric_rows, "list_points", counted)
    recent = RecentPoints()
    for step in (2, 3, 4):
        recording.record_points(held, [point(step)])
        heads = {metrics.look(backend, recent, PROJECT, job_id) for _ in range(20)}
        pages = [metrics.shared_page(recent, job_id, head, MetricsQuery(after=1)) for head in heads]
        assert [len(orjson.loads(page or b"")["points"]) for page in pages] == [step - 1]
    assert len(reads) == 3


def test_a_job_of_another_project_is_unknown(backend: Backend) -> None:
    job_id = submit(backend).id
    with pytest.raises(NotFound):
        metrics.look(backend, RecentPoints(), "prj_other", job_id)


def test_many_threads_at_different_moments_miss_nothing() -> None:
    """Each sees the job as its own transaction does: some are behind what another has read."""
    recent, written, faults = RecentPoints(), 3000, []

    def load(after: int) -> list[Numbered]:
        return [(seq, b"%d" % seq) for seq in range(after + 1, min(written, after + 2 * recent_points.MAX_POINTS) + 1)]

    def follow(seed: int) -> None:
        rng, after = random.Random(seed), rng_start
        while after < written:
            newest = min(written, after + rng.randint(0, 40))
            recent.extend("job", 0, newest, load)
            found = recent.between("job", after, newest)
            if found is not None and [seq for seq, _ in found] != list(range(after + 1, newest + 1)):
                faults.append((after, newest, found))
            after = newest

    rng_start = 1
    threads = [threading.Thread(target=follow, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_few_jobs_and_points_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_points, "MAX_JOBS", 2)
    recent = RecentPoints()
    for job in "abc":
        recent.extend(job, 0, 3, lambda after: [(seq, b"") for seq in range(after + 1, 4)])
    assert recent.between("a", 0, 3) is None
    assert len(recent.between("b", 0, 3) or ()) == len(recent.between("c", 0, 3) or ()) == 3
    recent.extend("c", 0, 10**6, lambda after: [(seq, b"") for seq in range(after + 1, after + 2002)])
    assert recent.between("c", 3, 10**6) is None
    assert recent.between("c", 10**6, 10**6) == []
