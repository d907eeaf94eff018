"""Versions of a dataset: made of the rows of another version, never changed afterwards.

A version is a dataset of its own, with a file, rows, report and digests, that knows its first version and its number.
So jobs, previews, quotas and deletion need to know nothing of versions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import datasets as dataset_rows
from core.database.tables.datasets import Dataset
from core.domain.dataset_rows import DatasetKind, DatasetOrigin
from core.domain.errors import DomainError, FieldError, InvalidRequest, present
from core.services.access.disk_reserve import require_disk
from core.services.backend import Backend
from core.services.cursors import decode_offset, encode_cursor
from core.services.datasets import datasets, intake
from core.services.datasets.datasets import DatasetNotFound, DatasetNotReady, view
from core.services.datasets.intake import Lineage
from core.services.datasets.scratch import scratch_folder
from core.services.datasets.versions import recipes
from core.services.datasets.versions.recipes import Edits, Source
from core.services.ids import derived_id, new_id
from core.services.transactions import reads
from core.services.views import DatasetView, Page
from core.storage import keys

FILENAME = "rows.jsonl"
MAX_NAME_CHARS = 255


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a new version has otherwise than the one that it is made from."""

    base_version: int | None = None
    """None: the newest that is ready."""
    append: Sequence[str] = ()
    """Names of datasets whose rows are added."""
    edits: Edits = field(default_factory=Edits)

    @property
    def is_none(self) -> bool:
        edits = self.edits
        return not (self.append or edits.drop_lines or edits.swap_lines or edits.rows or edits.drops_duplicates)


@dataclass(frozen=True, kw_only=True)
class Taking:
    """How a dataset that is made of others is taken in."""

    dataset_id: str | None = None
    """Chosen before (see `idempotency`): a repeated call answers what is there."""
    is_later: bool = False
    """Checked after the answer."""

    def take(self, backend: Backend, project_id: str, file: intake.Upload, dataset_id: str) -> DatasetView:
        create = intake.create_later if self.is_later else intake.create
        return create(backend, project_id, file, dataset_id=dataset_id)


def create(backend: Backend, project_id: str, name: str, change: Change, taking: Taking) -> DatasetView:
    """Make the next version of a dataset.

    Raises:
        DatasetNotFound, DatasetNotReady: of the dataset itself.
        InvalidRequest: nothing would change, no row would be left, or what is appended is not there, not ready, or of
            another kind.
        UnknownLines: lines that the version has not.
        DatasetRejected, QuotaExceeded, StorageQuotaExceeded, TooManyVersions: as for an upload.
    """
    known = intake.find_known(backend, project_id, taking.dataset_id)
    if known is not None:
        return known
    if change.is_none:
        raise InvalidRequest("Nothing would change: give append, rows, drop_lines, swap_lines or drop_duplicates.")
    base = datasets.find_ready(backend, project_id, at_version(name, change.base_version))
    if change.edits.swap_lines and base.kind in (DatasetKind.DEMONSTRATION, DatasetKind.RESPONSES):
        fault = f"rows of kind {base.kind.value} have one response each: nothing can be swapped"
        raise InvalidRequest(f"/swap_lines: {fault}.", errors=[FieldError("/swap_lines", fault)])
    sources = [base, *_find_named(backend, project_id, change.append, "/append", base.kind)]
    lineage = Lineage(how=DatasetOrigin.CHANGE, root_id=base.root_id or base.id)
    return _make(backend, sources, change.edits, lineage, base.name, taking)


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Datasets whose rows become a new one, in their order."""

    names: Sequence[str]
    title: str | None = None
    """Of the new one; None: of all of them."""
    drops_duplicates: bool = False


def merge(backend: Backend, project_id: str, wanted: Merge, taking: Taking) -> DatasetView:
    """Make a new dataset of the rows of others. Raises what `create` does."""
    known = intake.find_known(backend, project_id, taking.dataset_id)
    if known is not None:
        return known
    sources = _find_named(backend, project_id, wanted.names, "/dataset_ids", None)
    title = wanted.title or " + ".join(dict.fromkeys(source.name for source in sources))
    edits = Edits(drops_duplicates=wanted.drops_duplicates)
    return _make(backend, sources, edits, Lineage(how=DatasetOrigin.MERGE), title, taking)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Parts of a dataset, as shares of its prompts."""

    fractions: Sequence[float]
    seed: int = 0


def split(backend: Backend, project_id: str, name: str, wanted: Split, taking: Taking) -> list[DatasetView]:
    """Make a new dataset of each part; whole prompts go to one part. Raises InvalidRequest where one would be empty.

    Where a part is refused, the earlier ones are deleted: all are there, or none.
    """
    first = taking.dataset_id or new_id("ds")
    chosen = [first, *(derived_id(first, number) for number in range(1, len(wanted.fractions)))]
    known = [intake.find_known(backend, project_id, dataset_id) for dataset_id in chosen] if taking.dataset_id else []
    if known and all(known):
        return [found for found in known if found is not None]
    source = datasets.find_ready(backend, project_id, name)
    require_disk(backend.settings, _num_bytes([source]), "the parts")
    made: list[DatasetView] = []
    with scratch_folder(backend.settings, "split") as folder:
        parts = recipes.write_parts(backend.store, _stored(source), wanted.fractions, wanted.seed, folder)
        for number, (part, dataset_id) in enumerate(zip(parts, chosen, strict=True)):
            detail = {"fraction": wanted.fractions[number], "seed": wanted.seed, "part": number + 1}
            file = intake.Upload(
                path=part.path,
                filename=FILENAME,
                name=f"{source.name[: MAX_NAME_CHARS - 4]} {number + 1}/{len(parts)}",
                kind=source.kind,
                lineage=_lineage(Lineage(how=DatasetOrigin.SPLIT), {source.version_name: part.num_rows}, detail),
            )
            try:
                made.append(taking.take(backend, project_id, file, dataset_id))
            except DomainError as error:
                if error.kind != "unavailable":  # else a repeated call goes on with the rest
                    _take_back(backend, project_id, made)
                raise
    return made


@reads
def list_versions(
    session: Session, project_id: str, name: str, *, limit: int = 20, cursor: str | None = None
) -> Page[DatasetView]:
    """Return the versions of a dataset, newest first. Raises DatasetNotFound."""
    before = decode_offset(cursor) if cursor else None
    row = present(dataset_rows.find_dataset(session, project_id, name), DatasetNotFound, f"There is no dataset {name}.")
    rows = dataset_rows.list_versions(session, row.root_id or row.id, before=before, limit=limit + 1)
    shown = rows[:limit]
    next_cursor = encode_cursor(str(shown[-1].number)) if len(rows) > limit else None
    return Page(data=[replace(view(row), id=row.version_name) for row in shown], next_cursor=next_cursor)


def at_version(name: str, version: int | None) -> str:
    """Return the name of one version of a dataset. Raises InvalidRequest where the name has another one already."""
    root, at, given = name.partition("@")
    if version is None:
        return name
    if at and given != str(version):
        fault = f"{name} is another version than {version}"
        raise InvalidRequest(f"/version: {fault}.", errors=[FieldError("/version", fault)])
    return f"{root}@{version}"


def _make(
    backend: Backend, sources: Sequence[Dataset], edits: Edits, lineage: Lineage, title: str, taking: Taking
) -> DatasetView:
    require_disk(backend.settings, _num_bytes(sources), "the new version")
    with scratch_folder(backend.settings, "version") as folder:
        path = folder / FILENAME
        counts = recipes.write_file(backend.store, [_stored(source) for source in sources], edits, path)
        if not counts.num_rows:
            raise InvalidRequest("No row would be left.")
        file = intake.Upload(
            path=path,
            filename=FILENAME,
            name=title[:MAX_NAME_CHARS],
            kind=sources[0].kind,
            lineage=_lineage(lineage, counts.per_source, counts.as_json()),
        )
        return taking.take(backend, sources[0].project_id, file, taking.dataset_id or new_id("ds"))


def _lineage(lineage: Lineage, per_source: Mapping[str, int], detail: Mapping[str, Any]) -> Lineage:
    return replace(lineage, sources=dict(per_source), detail=dict(detail))


def _find_named(
    backend: Backend, project_id: str, names: Sequence[str], pointer: str, kind: DatasetKind | None
) -> list[Dataset]:
    """Find datasets that a body names, all of one kind. Raises InvalidRequest naming every fault."""
    found: list[Dataset] = []
    errors: list[FieldError] = []
    for position, name in enumerate(names):
        try:
            row = datasets.find_ready(backend, project_id, name)
        except (DatasetNotFound, DatasetNotReady) as error:
            errors.append(FieldError(f"{pointer}/{position}", error.detail))
            continue
        wanted = kind or (found[0].kind if found else row.kind)
        if row.kind is not wanted:
            fault = f"{name} is of kind {row.kind.value}; rows of kind {wanted.value} are wanted"
            errors.append(FieldError(f"{pointer}/{position}", fault))
        found.append(row)
    if errors:
        raise InvalidRequest("; ".join(f"{error.pointer}: {error.detail}" for error in errors), errors=errors)
    return found


def _stored(row: Dataset) -> Source:
    return Source(name=row.version_name, key=keys.dataset_rows(row.project_id, row.id))


def _num_bytes(rows: Sequence[Dataset]) -> int:
    return sum(row.rows_bytes or row.num_bytes for row in rows)


def _take_back(backend: Backend, project_id: str, made: Sequence[DatasetView]) -> None:
    for found in made:
        datasets.delete(backend, project_id, found.id)
