"""What finished jobs keep, and for how long, by the database's clock."""

import time
from pathlib import Path

import pytest
from backends import PROJECT, add_dataset, checkpoint, checkpoint_with_policy, claim, make_backend, publication, submit
from sqlalchemy import update

from core.database.columns import database_after
from core.database.session import Database
from core.database.tables.jobs import Job
from core.domain.jobs.job_state import Stage
from core.domain.jobs.stored_files import StoredTree
from core.services.attempts import lifecycle
from core.services.attempts.checkpoints import NewStageOutput, commit_stage_output
from core.services.backend import Backend
from core.services.jobs import artifacts, checkpoint_policies, events, jobs, repeats, retention, steering
from core.services.jobs.artifacts import ArtifactNotFound
from core.services.operations import garbage_collection
from core.services.operations.sweep import Sweeper
from core.storage import keys

DAY_SECONDS = 86_400


def keeping(folder: Path, database: Database, **settings: float) -> Backend:
    backend = make_backend(folder, database, **settings)
    add_dataset(backend)
    return backend


def finish(backend: Backend, days_ago: float, **fields: object) -> str:
    """A job that ended so long ago, with two checkpoints, a policy, a stage output and an artifact."""
    submit(backend, **fields)
    held = claim(backend)
    checkpoint(backend, held, 1)
    checkpoint_with_policy(backend, held, 2, {"config.json": b"{}"})
    prefix = keys.stage_output_prefix(PROJECT, held.job_id, held.attempt_name, held.job_id)
    backend.store.put_bytes(prefix + "manifest.json", b"{}")
    tree = StoredTree(prefix=prefix, manifest_sha256="2" * 64)
    commit_stage_output(held, NewStageOutput(stage=Stage.SFT, digest=held.job_id, tree=tree, num_bytes=2))
    lifecycle.finish_succeeded(held, publication(backend, held))
    then = database_after(-days_ago * DAY_SECONDS)
    backend.database.write(
        lambda session: session.execute(update(Job).where(Job.id == held.job_id).values(finished_at=then))
    )
    return held.job_id


def kinds_stored(backend: Backend, job_id: str) -> set[str]:
    """What the store holds of a job once the garbage has gone."""
    while garbage_collection.collect(backend):
        continue
    return {info.key.split("/")[5] for info in backend.store.list(keys.ROOT) if f"/{job_id}/" in info.key}


ALL = {"checkpoints", "policies", "stages", "artifact"}


def test_nothing_goes_by_itself(database: Database, tmp_path: Path) -> None:
    backend = keeping(tmp_path, database)
    job_id = finish(backend, days_ago=5000)
    assert retention.apply(backend) == 0
    assert kinds_stored(backend, job_id) == ALL


def test_checkpoints_go_when_their_days_are_over(database: Database, tmp_path: Path) -> None:
    backend = keeping(tmp_path, database, keep_checkpoints_days=7)
    old, young = finish(backend, days_ago=7.01), finish(backend, days_ago=6.99)
    assert retention.apply(backend) == 1
    assert kinds_stored(backend, old) == {"stages", "artifact"}
    assert kinds_stored(backend, young) == ALL
    assert checkpoint_policies.list_checkpoints(backend, PROJECT, old) == []
    assert len(checkpoint_policies.list_checkpoints(backend, PROJECT, young)) == 2
    assert artifacts.get(backend, PROJECT, old).files
    last = events.list_events(backend, PROJECT, old)[-1]
    assert (last.kind, last.data) == ("retention", {"what": "checkpoints"})
    assert "7 days" in last.message
    assert retention.apply(backend) == 0, "once"


def test_artifacts_go_and_the_record_stays(database: Database, tmp_path: Path) -> None:
    backend = keeping(tmp_path, database, keep_artifacts_days=30)
    old, young = finish(backend, days_ago=31), finish(backend, days_ago=29)
    assert retention.apply(backend) == 1
    assert kinds_stored(backend, old) == {"checkpoints", "policies"}
    assert kinds_stored(backend, young) == ALL
    with pytest.raises(ArtifactNotFound):
        artifacts.get(backend, PROJECT, old)
    job = jobs.get(backend, PROJECT, old)
    assert (job.status.value, job.artifact) == ("succeeded", None)
    jobs.delete(backend, PROJECT, old)
    assert kinds_stored(backend, old) == set()


def test_what_somebody_goes_on_from_stays(database: Database, tmp_path: Path) -> None:
    backend = keeping(tmp_path, database, keep_checkpoints_days=1, keep_artifacts_days=1)
    base = finish(backend, days_ago=2)
    running = submit(backend, base_model=base).id
    assert retention.apply(backend) == 0
    assert kinds_stored(backend, base) == ALL
    retried = repeats.retry(backend, PROJECT, steering.cancel(backend, PROJECT, running).job.id).id
    steering.cancel(backend, PROJECT, retried)
    assert retention.apply(backend) == 2
    assert kinds_stored(backend, base) == set()


def test_a_pass_is_bounded_and_the_next_goes_on(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MAX_JOBS", 2)
    backend = keeping(tmp_path, database, keep_checkpoints_days=1)
    ended = [finish(backend, days_ago=days) for days in (3, 5, 4)]
    assert retention.apply(backend) == 2
    assert checkpoint_policies.list_checkpoints(backend, PROJECT, ended[0]) != [], "the oldest went first"
    assert retention.apply(backend) == 1


def test_the_sweeper_does_it_by_the_databases_clock(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = keeping(tmp_path, database, keep_checkpoints_days=1, keep_artifacts_days=1)
    old, young = finish(backend, days_ago=1.1), finish(backend, days_ago=0.9)
    monkeypatch.setattr(time, "time", lambda: 1e10)  # this process lives in the year 2286
    Sweeper(backend).sweep()
    assert kinds_stored(backend, old) == set()
    assert kinds_stored(backend, young) == ALL
