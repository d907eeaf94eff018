"""Requests to publish a policy again: what they are made of, and that they are recorded."""

import json

import pytest
from backends import PROJECT, add_dataset, submit

from core.services.access import audit
from core.services.access.audit import Actor, AuditFilter
from core.services.backend import Backend
from core.services.requests import republications
from core.storage import keys


def test_rows_end_at_line_feeds_only(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON Lines hold other ends of lines as they are: U+2028, U+2029, U+0085."""
    add_dataset(backend)
    rows = [{"prompt": f"a{mark}b", "chosen": "x", "rejected": "y"} for mark in "\u2028\u2029\x85é"]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    backend.store.put_bytes(keys.dataset_rows(PROJECT, "ds_1"), content)
    assert [json.loads(line) for line in republications._first_rows(backend, PROJECT, "ds_1")] == rows
    monkeypatch.setattr(republications, "MAX_ROWS_BYTES", len(content) - 3)
    assert [json.loads(line) for line in republications._first_rows(backend, PROJECT, "ds_1")] == rows[:-1]


def test_who_asked_for_other_weights_is_recorded(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(republications, "_require_lossy", lambda session, job: None)
    add_dataset(backend)
    job_id = submit(backend).id
    with audit.acting(Actor(name="key_1", key_id="key_1")):
        asked = republications.create(backend, PROJECT, job_id)
        republications.create(backend, PROJECT, job_id)
    found = audit.list_page(backend, AuditFilter(action="republication.create")).data
    assert [(event.actor, event.object_id, event.detail) for event in found] == [
        ("key_1", asked.id, {"job_id": job_id})
    ]
