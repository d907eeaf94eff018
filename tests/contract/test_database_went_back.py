"""A database that went back in time gives out attempt numbers again, but fences whoever got one before."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from backends import PROJECT, add_dataset, checkpoint, claim, make_backend, make_due, point, publication, submit
from sqlalchemy import text
from toy_jobs import points

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.session import Database
from core.domain.errors import Fenced
from core.services.attempts import lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.backend import Backend
from core.services.jobs import jobs
from core.services.operations import garbage_collection
from core.services.operations.sweep import expire, list_leases
from core.storage import keys

NUM_RUNS = 50


class GoingBack:
    """A backend over a SQLite file that can be put back to an earlier copy, as a restored backup is."""

    def __init__(self, folder: Path) -> None:
        self._file, self._copy, self._folder = folder / "preftune.db", folder / "copy.db", folder
        upgrade(f"sqlite:///{self._file}")
        self.backend = self._open()

    def keep(self) -> None:
        self.backend.database.write(lambda session: session.execute(text("UPDATE sweeper_lock SET owner = owner")))
        self.backend.database.close()
        shutil.copy(self._file, self._copy)
        self.backend = self._open()

    def put_back(self) -> None:
        self.backend.database.close()
        for leftover in self._folder.glob("preftune.db*"):
            leftover.unlink()
        shutil.copy(self._copy, self._file)
        self.backend = self._open()

    def hand(self, held: ClaimedJob) -> ClaimedJob:
        """The claim over the file as it is now: its worker opens a connection when it writes."""
        return replace(held, backend=self.backend)

    def _open(self) -> Backend:
        return make_backend(self._folder, Database(open_engine(f"sqlite:///{self._file}")))


@pytest.fixture
def world(tmp_path: Path) -> GoingBack:
    return GoingBack(tmp_path)


def test_a_database_that_went_back_fences_the_old_worker(world: GoingBack) -> None:
    add_dataset(world.backend)
    job_id = submit(world.backend).id
    world.keep()
    old = claim(world.backend, "old")
    checkpoint(world.backend, world.hand(old), 1)
    world.put_back()
    new = claim(world.backend, "new")
    assert (old.job_id, old.attempt) == (new.job_id, new.attempt) == (job_id, 1)
    for write in (
        lambda: lifecycle.heartbeat(world.hand(old)),
        lambda: checkpoint(world.backend, world.hand(old), 2),
        lambda: lifecycle.finish_succeeded(world.hand(old), publication(world.backend, old)),
    ):
        with pytest.raises(Fenced):
            write()
    lifecycle.heartbeat(new)
    published = publication(world.backend, new)
    assert published.tree.prefix != publication(world.backend, old).tree.prefix, "they write into folders of their own"
    lifecycle.finish_succeeded(new, published)
    with pytest.raises(Fenced):  # not taken for a repeated answer to its own finish
        lifecycle.finish_succeeded(world.hand(old), publication(world.backend, old))


def test_a_worker_whose_points_are_gone_ends_its_attempt(world: GoingBack) -> None:
    add_dataset(world.backend)
    job_id = submit(world.backend).id
    held = claim(world.backend, "lives on")
    lifecycle.begin(world.hand(held))
    recording.record_points(world.hand(held), [point(1)])
    world.keep()
    lifecycle.heartbeat(world.hand(held))
    recording.record_points(world.hand(held), [point(2)])
    world.put_back()
    for write in (
        lambda: lifecycle.heartbeat(world.hand(held)),
        lambda: recording.record_points(world.hand(held), [point(3)]),
        lambda: lifecycle.finish_succeeded(world.hand(held), publication(world.backend, held)),
    ):
        with pytest.raises(Fenced, match="went back"):
            write()
    (lease,) = list_leases(world.backend)
    assert expire(world.backend, lease)
    make_due(world.backend)
    after = claim(world.backend, "next")
    lifecycle.begin(after)
    recording.record_points(after, [point(step) for step in (1, 2, 3)])
    assert [one.step for one in points(world.backend, job_id)] == [1, 2, 3]


def test_no_publication_is_double_however_often_the_database_goes_back(world: GoingBack) -> None:
    add_dataset(world.backend)
    zombies, published = [], []
    for _ in range(NUM_RUNS):
        job_id = submit(world.backend).id
        world.keep()
        zombies.append(claim(world.backend, "old"))
        lifecycle.begin(zombies[-1])
        world.put_back()
        held = claim(world.backend, "new")
        num_fenced = 0
        for zombie in zombies:
            try:
                lifecycle.finish_succeeded(world.hand(zombie), publication(world.backend, zombie))
            except Fenced:
                num_fenced += 1
        assert num_fenced == len(zombies)
        lifecycle.finish_succeeded(world.hand(held), publication(world.backend, held))
        published.append(job_id)
    assert [jobs.get(world.backend, PROJECT, job_id).status.value for job_id in published] == ["succeeded"] * NUM_RUNS


def test_what_the_old_worker_uploads_is_an_orphan_though_its_number_runs(world: GoingBack) -> None:
    add_dataset(world.backend)
    submit(world.backend)
    world.keep()
    old = claim(world.backend, "old")
    world.put_back()
    new = claim(world.backend, "new")
    of_old, of_new = (keys.checkpoint_prefix(PROJECT, held.job_id, held.attempt_name, "dpo", 9) for held in (old, new))
    assert garbage_collection.is_orphan(world.backend, of_old)
    assert not garbage_collection.is_orphan(world.backend, of_new)
    of_first_release = keys.checkpoint_prefix(PROJECT, new.job_id, new.attempt, "dpo", 9)
    assert not garbage_collection.is_orphan(world.backend, of_first_release)
