"""Of equal stages that begin at the same time one is built; on both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from backends import add_dataset, claim, submit
from sqlalchemy import func, select

from core.database.tables.objects import StageBuild
from core.domain.jobs.job_state import AttemptOutcome, Stage
from core.domain.jobs.stored_files import StoredTree
from core.domain.trainer_protocol import StageChanged
from core.services.attempts import checkpoints, lifecycle, recording, stage_builds
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.stage_builds import Builder
from core.services.backend import Backend

DIGEST = "d" * 64


@pytest.fixture(autouse=True)
def _dataset(backend: Backend) -> None:
    add_dataset(backend)


def start(backend: Backend, worker: str = "worker-1") -> ClaimedJob:
    submit(backend)
    return claim(backend, worker)


def announce(backend: Backend, held: ClaimedJob, digest: str = DIGEST) -> Builder | None:
    return stage_builds.announce(held, Stage.SFT, digest)


def test_the_first_builds_and_the_others_wait(backend: Backend) -> None:
    first, second = start(backend), start(backend)
    assert announce(backend, first) is None
    assert announce(backend, first) is None, "asking again changes nothing"
    assert announce(backend, second) == Builder(job_id=first.job_id, is_past=False)
    assert announce(backend, second, "e" * 64) is None
    recording.stage_changed(first, StageChanged(stage="reference", status="started"))
    assert announce(backend, second) == Builder(job_id=first.job_id, is_past=True)


def test_eight_at_once_have_one_builder(backend: Backend) -> None:
    claims = [start(backend, f"worker-{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        builders = list(pool.map(lambda held: announce(backend, held), claims))
    (first,) = [held for held, builder in zip(claims, builders, strict=True) if builder is None]
    assert {builder.job_id for builder in builders if builder is not None} == {first.job_id}


def test_an_attempt_that_is_over_builds_nothing(backend: Backend) -> None:
    """Handed back, failed, or replaced by an attempt of its own job."""
    first, second = start(backend), start(backend)
    assert announce(backend, first) is None
    assert announce(backend, first, "e" * 64) is None
    lifecycle.release(first, AttemptOutcome.DRAINED)
    assert announce(backend, second) is None
    again = claim(backend)
    assert (again.job_id, again.attempt) == (first.job_id, 2)
    assert announce(backend, again) == Builder(job_id=second.job_id, is_past=False)
    count = backend.database.read(lambda session: session.scalar(select(func.count()).select_from(StageBuild)))
    assert count == 1, "what ended attempts announced is forgotten"


def test_a_built_output_is_no_longer_being_built(backend: Backend) -> None:
    first, second = start(backend), start(backend)
    assert announce(backend, first) is None
    tree = StoredTree(prefix="projects/default/jobs/a/a1/stages/d/", manifest_sha256="1" * 64)
    new = checkpoints.NewStageOutput(stage=Stage.SFT, digest=DIGEST, tree=tree, num_bytes=1)
    checkpoints.commit_stage_output(first, new)
    checkpoints.drop_stage_output(second, DIGEST)
    assert announce(backend, second) is None
