"""Comparisons as files: plain text, and one HTML file with the texts of pairs that changed sides."""

from core.domain.errors import DomainError
from core.domain.training.comparisons import PairKey
from core.services.backend import Backend
from core.services.comparisons import coloured, report_html, text
from core.services.comparisons.comparisons import Comparison
from core.services.datasets import datasets
from core.services.datasets.row_pages import Row, RowsQuery

MAX_TEXTS = 40
"""Lines whose pairs the report has with their texts; those of further ones are left out."""


def as_text(comparison: Comparison) -> str:
    return text.as_text(comparison)


def as_html(backend: Backend, project_id: str, comparison: Comparison) -> str:
    title = f"Comparison of {comparison.sweep_id or f'{len(comparison.jobs)} jobs'}"
    job_ids = [job.job_id for job in comparison.jobs]
    scored = backend.database.read(lambda session: coloured.read_scored(session, job_ids))
    return report_html.as_html(comparison, title, _texts(backend, project_id, comparison), scored)


def _texts(backend: Backend, project_id: str, comparison: Comparison) -> dict[PairKey, Row]:
    """Return rows of pairs that changed sides; none of a dataset that was deleted.

    Of a line that has more rows than pairs that are held out it is not known which rows these are.
    """
    dataset_id = comparison.pairs_dataset_id
    if dataset_id is None:
        return {}
    shown = [item.changed[: report_html.MAX_PAIRS_SHOWN] for item in comparison.differences]
    lines = list(dict.fromkeys((pair.line, pair.num_of_line) for pairs in shown for pair in pairs))[:MAX_TEXTS]
    found: dict[PairKey, Row] = {}
    for line, number in lines:
        try:
            page = datasets.list_rows(backend, project_id, dataset_id, RowsQuery(limit=number + 1, line=line))
        except DomainError:
            return found
        rows = [row for row in page.data if row["line"] == line]
        if len(rows) == number:
            found |= {(line, place): row for place, row in enumerate(rows, 1)}
    return found
