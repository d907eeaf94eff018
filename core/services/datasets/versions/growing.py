"""Datasets that grow: of votes or feedback, whose versions are cut from all that there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.database.repositories import arenas as grown_rows
from core.database.repositories import datasets as dataset_rows
from core.database.tables.arenas import GrownDataset
from core.domain.dataset_rows import DatasetKind, DatasetOrigin
from core.services.backend import Backend
from core.services.datasets import datasets, intake
from core.services.datasets.intake import Lineage
from core.services.datasets.versions.versions import FILENAME
from core.services.ids import new_id
from core.services.transactions import writes
from core.services.views import DatasetView
from core.storage.trees import file_sha256

_MAX_TRIES = 3
"""Two first versions may be cut at the same moment; the later one becomes a version of the other."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """A file of all rows that a source has gathered."""

    source: str
    path: Path
    name: str
    kind: DatasetKind
    how: DatasetOrigin
    detail: Mapping[str, Any] = field(default_factory=dict)
    ignore: Sequence[str] = ()
    """Columns that say where a row is from."""
    on_error: Literal["reject", "skip"] = "reject"


def grow(
    backend: Backend, project_id: str, growth: Growth, *, dataset_id: str | None = None
) -> tuple[DatasetView, bool]:
    """Return the newest version of the source's dataset, made now where rows have changed, and whether it was.

    Raises what `intake.create` raises. With a `dataset_id` chosen before, a repeated call answers what is there.
    """
    known = intake.find_known(backend, project_id, dataset_id)
    if known is not None:
        _remember(backend, project_id, growth.source, str(dataset_id))
        return known, True
    chosen = dataset_id or new_id("ds")
    for _ in range(_MAX_TRIES):
        root_id = backend.database.read(lambda session: _find_root(session, project_id, growth.source))
        if root_id is not None:
            newest = datasets.resolve(backend, project_id, root_id)
            if newest.sha256 == file_sha256(growth.path):
                return datasets.get(backend, project_id, newest.version_name), False
        made = intake.create(backend, project_id, _upload(growth, root_id), dataset_id=chosen)
        if root_id is not None or _remember(backend, project_id, growth.source, chosen):
            return made, True
        datasets.delete(backend, project_id, chosen)
        chosen = new_id("ds")
    raise AssertionError("a source has one dataset, which every try finds")


def _upload(growth: Growth, root_id: str | None) -> intake.Upload:
    return intake.Upload(
        path=growth.path,
        filename=FILENAME,
        name=growth.name,
        kind=growth.kind,
        ignore=growth.ignore,
        on_error=growth.on_error,
        lineage=Lineage(how=growth.how, root_id=root_id, detail=growth.detail),
    )


def _find_root(session: Session, project_id: str, source: str) -> str | None:
    grown = grown_rows.find_grown(session, project_id, source)
    if grown is None or dataset_rows.find_dataset(session, project_id, grown.dataset_id) is None:
        return None
    return grown.dataset_id


def _remember(backend: Backend, project_id: str, source: str, dataset_id: str) -> bool:
    """Note the source's dataset; returns False where it has another one."""
    try:
        return _note_grown(backend, project_id, source, dataset_id)
    except IntegrityError:  # another first version was noted between the look and the insert
        return _note_grown(backend, project_id, source, dataset_id)


@writes
def _note_grown(session: Session, project_id: str, source: str, dataset_id: str) -> bool:
    row = dataset_rows.lock_dataset(session, project_id, dataset_id)
    if row is None or row.root_id is not None:
        return True
    root_id = _find_root(session, project_id, source)
    if root_id is None:
        session.merge(GrownDataset(project_id=project_id, source=source, dataset_id=dataset_id))
    return root_id in (None, dataset_id)
