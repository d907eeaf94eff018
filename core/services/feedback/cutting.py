"""Feedback as rows: a version of the project's dataset of pairs, or of thumbs, cut whenever somebody asks for it."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.orm import Session

from core.database.repositories import feedback as rows
from core.database.tables.feedback import FeedbackItem, ServedAnswer
from core.domain.arenas.feedback import FeedbackKind
from core.domain.dataset_rows import DatasetKind, DatasetOrigin
from core.domain.errors import Conflict
from core.services.backend import Backend
from core.services.datasets.scratch import scratch_folder
from core.services.datasets.versions import growing
from core.services.datasets.versions.growing import Growth
from core.services.datasets.versions.versions import FILENAME
from core.services.feedback.row_lines import COLUMN, row_line
from core.services.views import DatasetView

PAGE = 200
"""Pieces of feedback read at a time."""
_KINDS = {
    DatasetKind.PREFERENCE: (FeedbackKind.EDIT, FeedbackKind.PREFERENCE),
    DatasetKind.UNPAIRED: (FeedbackKind.THUMB,),
}
_NAMES = {DatasetKind.PREFERENCE: "Feedback: pairs", DatasetKind.UNPAIRED: "Feedback: thumbs"}


class NoFeedback(Conflict):
    code = "no-feedback"
    title = "Nobody has given such feedback yet"


def cut(
    backend: Backend, project_id: str, kind: DatasetKind, *, dataset_id: str | None = None
) -> tuple[DatasetView, bool]:
    """Return the dataset of all edits and preferences, or of all thumbs, and whether it is a new version.

    `kind` is preference or unpaired. Raises NoFeedback, and what an upload raises.
    """
    with scratch_folder(backend.settings, "feedback") as folder:
        path = folder / FILENAME
        if not _write(backend, project_id, kind, path):
            needed = " or ".join(_KINDS[kind])
            raise NoFeedback(f"A dataset of kind {kind.value} needs feedback of kind {needed}; there is none.")
        growth = Growth(
            source=f"feedback:{kind.value}",
            path=path,
            name=_NAMES[kind],
            kind=kind,
            how=DatasetOrigin.FEEDBACK,
            detail={"kinds": [each.value for each in _KINDS[kind]]},
            ignore=(COLUMN,),
            on_error="skip",
        )
        return growing.grow(backend, project_id, growth, dataset_id=dataset_id)


def _write(backend: Backend, project_id: str, kind: DatasetKind, path: Path) -> int:
    num_rows = 0
    with path.open("wb") as file:
        for item, answer, other in _given(backend, project_id, kind):
            file.write(row_line(item, answer, other))
            num_rows += 1
    return num_rows


def _given(
    backend: Backend, project_id: str, kind: DatasetKind
) -> Iterator[tuple[FeedbackItem, ServedAnswer, ServedAnswer | None]]:
    """Yield feedback in its order, with its answers."""
    last = ""
    while True:

        def work(session: Session, after: str = last) -> tuple[list[FeedbackItem], dict[str, ServedAnswer]]:
            items = rows.list_items(session, project_id, _KINDS[kind], after=after, limit=PAGE)
            named = {one for item in items for one in (item.answer_id, item.other_id) if one is not None}
            return items, rows.find_answers(session, sorted(named))

        items, answers = backend.database.read(work)
        for item in items:
            if {
                item.answer_id,
                item.other_id or item.answer_id,
            } <= answers.keys():  # else deleted between the two looks
                yield item, answers[item.answer_id], answers.get(item.other_id or "")
        if len(items) < PAGE:
            return
        last = items[-1].id
