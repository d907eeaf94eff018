"""Datasets are renamed in one transaction, on SQLite and PostgreSQL alike, and an audit event says who did it."""

import pytest
from backends import PROJECT, add_dataset

from core.services.access import audit
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.datasets.datasets import DatasetNotFound


def test_name_and_metadata_change_and_nothing_else(backend: Backend) -> None:
    before = datasets.get(backend, PROJECT, add_dataset(backend, "ds_changed"))
    with audit.acting(audit.operator_here()):
        changed = datasets.patch(backend, PROJECT, before.id, {"name": "after"})
    assert (changed.name, changed.metadata, changed.sha256) == ("after", before.metadata, before.sha256)
    assert datasets.get(backend, PROJECT, before.id) == changed
    assert datasets.patch(backend, PROJECT, before.id, {"metadata": {"a": "b"}}).metadata == {"a": "b"}
    actions = [event.action for event in audit.list_page(backend, audit.AuditFilter(object_id=before.id)).data]
    assert actions.count("dataset.patch") == 1


def test_a_dataset_of_another_project_is_not_there(backend: Backend) -> None:
    dataset_id = add_dataset(backend, "ds_mine")
    with pytest.raises(DatasetNotFound):
        datasets.patch(backend, "other", dataset_id, {"name": "taken"})
