"""Audit trail: written with what it records, only ever added to, kept for its time; on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import PROJECT, add_dataset, claim, make_backend, submit
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from core.database.columns import database_after
from core.database.session import Database
from core.database.tables.audit import AuditEvent
from core.domain.access import Scope
from core.services.access import api_keys, audit, projects
from core.services.access.api_keys import KeyNotFound, KeyOutOfReach, KeyReach
from core.services.access.audit import Actor, AuditFilter
from core.services.access.projects import Limits
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.jobs import jobs, steering

DAY = 86_400


@pytest.fixture
def actor() -> Iterator[Actor]:
    found = Actor(name="key_1", key_id="key_1", address="203.0.113.9", request_id="req_1")
    with audit.acting(found):
        yield found


def events(backend: Backend, **where: object) -> list[tuple[str, str | None]]:
    """Actions with their objects, oldest first."""
    page = audit.list_page(backend, AuditFilter(**where), limit=100)  # type: ignore[arg-type]
    return [(event.action, event.object_id) for event in reversed(page.data)]


def test_what_is_done_is_recorded_with_who_and_from_where(backend: Backend, actor: Actor) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    steering.pause(backend, PROJECT, job_id)
    steering.pause(backend, PROJECT, job_id)
    steering.resume(backend, PROJECT, job_id)
    jobs.patch(backend, PROJECT, job_id, {"name": "x"})
    steering.cancel(backend, PROJECT, job_id)
    jobs.delete(backend, PROJECT, job_id)
    datasets.delete(backend, PROJECT, "ds_1")
    made = api_keys.create(backend, PROJECT, "ci", Scope.READ).key
    newer = api_keys.rotate(backend, made.id).key
    api_keys.revoke(backend, newer.id)
    projects.set_limits(backend, PROJECT, Limits(max_queued_jobs=1))
    job_actions = ("submit", "pause", "resume", "patch", "cancel", "delete")
    assert events(backend) == [
        *((f"job.{action}", job_id) for action in job_actions),
        ("dataset.delete", "ds_1"),
        ("key.create", made.id),
        ("key.rotate", made.id),
        ("key.revoke", newer.id),
        ("project.limit", PROJECT),
    ]
    event = audit.list_page(backend, AuditFilter(action="job.submit")).data[0]
    assert (event.actor, event.key_id, event.address, event.request_id) == ("key_1", "key_1", "203.0.113.9", "req_1")
    assert (event.project_id, event.outcome) == (PROJECT, "done")


def test_what_is_not_done_is_not_recorded(backend: Backend, actor: Actor) -> None:
    add_dataset(backend)

    def fails_after_the_note(session: Session) -> None:
        audit.note(session, PROJECT, "job.submit", "job_never")
        session.flush()
        raise KeyNotFound("later in the transaction")

    with pytest.raises(KeyNotFound):
        backend.database.write(fails_after_the_note)
    assert events(backend) == []


def test_a_transaction_that_runs_twice_records_once(backend: Backend, actor: Actor) -> None:
    for _ in range(2):
        backend.database.write(lambda session: audit.note(session, PROJECT, "job.submit", "job_1"))
    assert events(backend) == [("job.submit", "job_1")]


def test_what_workers_do_by_themselves_is_not_in_it(backend: Backend) -> None:
    add_dataset(backend)
    submit(backend)
    claim(backend)
    assert events(backend) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET actor = 'somebody else'",
        "DELETE FROM audit_events",
        "DELETE FROM audit_events WHERE 1=1",
    ],
)
def test_the_database_refuses_changes(backend: Backend, actor: Actor, statement: str) -> None:
    backend.database.write(lambda session: audit.note(session, PROJECT, "job.submit", "job_1"))
    with pytest.raises(DBAPIError, match="audit events are final"):
        backend.database.write(lambda session: session.execute(text(statement)))
    assert events(backend) == [("job.submit", "job_1")]


def test_old_events_go_and_none_goes_before_its_time(tmp_path: Path, database: Database) -> None:
    backend = make_backend(tmp_path, database, audit_days=10)

    def add(event_id: str, age_days: float) -> None:
        event = AuditEvent(id=event_id, at=database_after(-age_days * DAY), actor="x", action=event_id, outcome="done")
        event.detail = {}
        backend.database.write(lambda session: session.add(event))

    for event_id, age in (("aud_1", 11.0), ("aud_2", 10.5), ("aud_3", 9.0), ("aud_4", 0.0)):
        add(event_id, age)
    assert audit.forget_old(backend) == 2
    assert events(backend) == [("aud_3", None), ("aud_4", None)]


def test_pages_and_filters(backend: Backend, actor: Actor) -> None:
    for number in range(5):
        audit.record(backend, Actor(name=f"key_{number % 2}"), f"p{number % 2}", "job.submit", f"job_{number}", "done")
    first = audit.list_page(backend, AuditFilter(), limit=3)
    assert [event.object_id for event in first.data] == ["job_4", "job_3", "job_2"]
    rest = audit.list_page(backend, AuditFilter(), limit=3, cursor=first.next_cursor)
    assert ([event.object_id for event in rest.data], rest.next_cursor) == (["job_1", "job_0"], None)
    assert len(events(backend, project_id="p1")) == 2
    assert len(events(backend, actor="key_0")) == 3
    middle = first.data[1].created_at
    assert events(backend, object_id="job_3", since=middle)
    assert not events(backend, object_id="job_3", until=middle)


def test_an_admin_reaches_the_keys_of_its_project_but_not_its_operators(backend: Backend) -> None:
    projects.create(backend, "other")
    admin = KeyReach(project_id=PROJECT, with_operators=False)
    ours = api_keys.create(backend, PROJECT, "ours", Scope.WRITE).key
    operator = api_keys.create(backend, PROJECT, "operator", Scope.OPERATOR).key
    theirs = api_keys.create(backend, "other", "theirs", Scope.READ).key
    assert [key.id for key in api_keys.list_page(backend, admin).data] == [ours.id]
    assert len(api_keys.list_page(backend, api_keys.EVERYWHERE).data) == 3
    for key_id in (operator.id, theirs.id):
        for act in (api_keys.get, api_keys.revoke):
            with pytest.raises(KeyNotFound):
                act(backend, key_id, admin)
        with pytest.raises(KeyNotFound):
            api_keys.rotate(backend, key_id, reach=admin)
    with pytest.raises(KeyOutOfReach):
        api_keys.create(backend, PROJECT, "x", Scope.OPERATOR, reach=admin)
    with pytest.raises(KeyOutOfReach):
        api_keys.create(backend, "other", "x", Scope.READ, reach=admin)
    assert api_keys.create(backend, PROJECT, "x", Scope.ADMIN, reach=admin).key.scope is Scope.ADMIN
    assert api_keys.get(backend, operator.id).is_live


def test_an_admin_of_before_is_an_operator(backend: Backend) -> None:
    made = api_keys.create(backend, PROJECT, "old", Scope.ADMIN)
    backend.database.write(lambda session: session.execute(text("UPDATE api_keys SET is_operator = NULL")))
    grant = api_keys.authenticate(backend, made.token)
    assert grant is not None
    assert grant.scope is Scope.OPERATOR


def test_rotating_lets_no_key_live_longer(backend: Backend) -> None:
    made = api_keys.create(backend, PROJECT, "short", Scope.READ, lifetime_seconds=60).key
    newer = api_keys.rotate(backend, made.id, grace_seconds=DAY).key
    assert api_keys.get(backend, made.id).expires_at == made.expires_at == newer.expires_at


def test_an_object_of_any_characters_is_recorded(backend: Backend, actor: Actor) -> None:
    """A path may hold what PostgreSQL refuses, and line breaks that would forge a line of the trail."""
    audit.record(
        backend, actor, PROJECT, "access.refused", "POST /datasets/\0\n\u202e\ud800é " + "\0" * 300, audit.REFUSED
    )
    ((_, told),) = events(backend, action="access.refused")
    assert told is not None
    assert told.startswith("POST /datasets/\\x00\\n\\u202e\\ud800é \\x00\\x00")
    assert len(told) == 255
