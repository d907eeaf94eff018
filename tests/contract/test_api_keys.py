"""Keys, projects and their limits, on both databases."""

import threading
import time

import pytest
from backends import add_dataset, submit
from sqlalchemy import select

from core.database.columns import database_now
from core.database.tables.access import ApiKey
from core.database.tables.projects import Project
from core.domain.access import Scope
from core.domain.errors import InvalidRequest
from core.domain.jobs.job_state import JobStatus
from core.services.access import api_keys, projects
from core.services.access.api_keys import KeyNotFound, KeyNotLive
from core.services.access.projects import Limits, ProjectExists, ProjectNotFound
from core.services.access.quotas import QuotaExceeded
from core.services.attempts import lifecycle
from core.services.backend import Backend

PROJECT = "default"
ENOUGH_CLAIMS = 6


def test_a_key_opens_its_project_and_only_its_hash_is_kept(backend: Backend) -> None:
    made = api_keys.create(backend, PROJECT, "ci", Scope.WRITE)
    grant = api_keys.authenticate(backend, made.token)
    assert grant is not None
    assert (grant.project_id, grant.scope, grant.key_id) == (PROJECT, Scope.WRITE, made.key.id)
    (row,) = backend.database.read(lambda session: list(session.scalars(select(ApiKey))))
    secret = made.token.rpartition("_")[2]
    assert len(secret) == 64
    assert not any(secret in str(value) for value in vars(row).values())
    (listed,) = api_keys.list_keys(backend)
    assert listed.last_used_at is not None
    assert listed.is_live


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "0", lambda t: t.upper(), lambda t: "", lambda t: "é"]
)
def test_nothing_but_the_key_is_the_key(backend: Backend, change: object) -> None:
    made = api_keys.create(backend, PROJECT, "ci", Scope.WRITE)
    assert api_keys.authenticate(backend, change(made.token)) is None  # type: ignore[operator]
    head, _, secret = made.token.rpartition("_")
    assert api_keys.authenticate(backend, f"{head}_{secret[::-1]}") is None
    unknown = f"pt_{'0' * 26}_{secret}"
    assert api_keys.authenticate(backend, unknown) is None


def test_a_key_ends_when_it_is_revoked_or_expires(backend: Backend) -> None:
    assert not api_keys.has_key(backend)
    assert api_keys.expiry_warning(backend) is None
    first = api_keys.create(backend, PROJECT, "first", Scope.READ)
    second = api_keys.create(backend, PROJECT, "second", Scope.READ, lifetime_seconds=0.05)
    assert api_keys.has_key(backend)
    assert api_keys.expiry_warning(backend) is None
    revoked = api_keys.revoke(backend, first.key.id)
    assert revoked.revoked_at is not None
    assert api_keys.revoke(backend, first.key.id).revoked_at == revoked.revoked_at
    time.sleep(0.1)
    assert api_keys.authenticate(backend, first.token) is None
    assert api_keys.authenticate(backend, second.token) is None
    assert api_keys.has_key(backend), "the last key's end opens nothing"
    assert "ends already" in str(api_keys.expiry_warning(backend))
    api_keys.create(backend, PROJECT, "third", Scope.READ, lifetime_seconds=3600)
    assert "within a week" in str(api_keys.expiry_warning(backend))
    with pytest.raises(KeyNotLive):
        api_keys.rotate(backend, first.key.id)
    with pytest.raises(KeyNotFound):
        api_keys.revoke(backend, "key_unknown")


def test_both_keys_work_while_one_is_rotated(backend: Backend) -> None:
    old = api_keys.create(backend, PROJECT, "ci", Scope.WRITE)
    new = api_keys.rotate(backend, old.key.id, grace_seconds=3600)
    assert (new.key.name, new.key.scope) == ("ci", Scope.WRITE)
    assert api_keys.authenticate(backend, old.token) is not None
    assert api_keys.authenticate(backend, new.token) is not None
    newest = api_keys.rotate(backend, new.key.id, grace_seconds=0)
    assert api_keys.authenticate(backend, new.token) is None
    assert api_keys.authenticate(backend, newest.token) is not None


def test_what_cannot_be_made_is_refused(backend: Backend) -> None:
    for name in ("", "x" * 101, "a\nb"):
        with pytest.raises(InvalidRequest):
            api_keys.create(backend, PROJECT, name, Scope.READ)
    with pytest.raises(InvalidRequest):
        api_keys.create(backend, PROJECT, "x", Scope.READ, lifetime_seconds=0)
    with pytest.raises(ProjectNotFound):
        api_keys.create(backend, "nowhere", "x", Scope.READ)
    for project_id in ("", "Upper", "a/b", "x" * 41, "-a"):
        with pytest.raises(InvalidRequest):
            projects.create(backend, project_id)
    with pytest.raises(ProjectExists):
        projects.create(backend, PROJECT)
    with pytest.raises(InvalidRequest):
        projects.set_limits(backend, PROJECT, Limits(max_queued_jobs=-1))


def test_queued_jobs_are_limited(backend: Backend) -> None:
    add_dataset(backend)
    projects.set_limits(backend, PROJECT, Limits(max_queued_jobs=2))
    submit(backend)
    submit(backend)
    with pytest.raises(QuotaExceeded, match="2 queued jobs"):
        submit(backend)
    assert lifecycle.claim(backend, worker="w", host="h", device="cpu")
    submit(backend)
    (project,) = projects.list_projects(backend)
    assert (project.num_queued, project.num_running) == (2, 1)


def test_running_jobs_are_limited_and_hold_up_nobody_else(backend: Backend) -> None:
    add_dataset(backend)
    projects.set_limits(backend, PROJECT, Limits(max_running_jobs=1))
    for _ in range(3):
        submit(backend, priority=5)
    theirs = other_projects_job(backend)
    first = lifecycle.claim(backend, worker="w1", host="h", device="cpu")
    second = lifecycle.claim(backend, worker="w2", host="h", device="cpu")
    assert first is not None
    assert second is not None
    assert (first.project_id, second.project_id, second.job_id) == (PROJECT, "other", theirs)
    assert lifecycle.claim(backend, worker="w3", host="h", device="cpu") is None
    lifecycle.release(first, lifecycle.AttemptOutcome.DRAINED)
    assert lifecycle.claim(backend, worker="w3", host="h", device="cpu") is not None


def test_workers_that_race_do_not_exceed_the_limit(backend: Backend) -> None:
    add_dataset(backend)
    projects.set_limits(backend, PROJECT, Limits(max_running_jobs=2))
    for _ in range(ENOUGH_CLAIMS):
        submit(backend)
    barrier = threading.Barrier(ENOUGH_CLAIMS)

    def race(number: int) -> None:
        barrier.wait()
        lifecycle.claim(backend, worker=f"w{number}", host="h", device="cpu")

    threads = [threading.Thread(target=race, args=(number,)) for number in range(ENOUGH_CLAIMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (project,) = projects.list_projects(backend)
    assert 1 <= project.num_running <= 2


def other_projects_job(backend: Backend) -> str:
    """A queued job of another project, made of one of the default's."""
    job = submit(backend)

    def work(session: object) -> None:
        session.add(Project(id="other", name="other", created_at=database_now()))  # type: ignore[attr-defined]
        session.flush()  # type: ignore[attr-defined]
        row = session.get(lifecycle.Job, job.id)  # type: ignore[attr-defined]
        row.project_id = "other"

    backend.database.write(work)
    assert job.status is JobStatus.QUEUED
    return job.id
