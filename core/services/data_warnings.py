"""Warnings of a dataset, seen before a job trains on it: the report's remarks, and how the file would be read today."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from core.database.tables.datasets import Dataset, DatasetStatus
from core.datasets.reading import READER_VERSION
from core.domain.issue_codes import ISSUE_KINDS, Effect, IssueCode
from core.services.views import DatasetWarning
from core.wording import counted

READ_OTHERWISE: Final = "read-otherwise"
"""The stored rows are of an earlier version, and the file gives other ones today."""
NOT_COMPARED: Final = "not-compared"
"""The stored rows are of an earlier version; they are compared with the file before a job trains on them."""
ROWS_LEFT_OUT: Final = "rows-left-out"
"""Malformed rows were dropped, as `on_error=skip` asks for."""

MAX_OF_A_CODE: Final = 5
"""Warnings of one code that are told one by one, as there is one for each column."""
_MINOR: Final = frozenset(
    (
        IssueCode.EMPTY_PROMPT,
        IssueCode.NEARLY_IDENTICAL_PAIR,
        IssueCode.LONG_ROW,  # the token counts tell it for the base model
        IssueCode.DECODED_TEXTS,
        IssueCode.END_TOKEN_IN_TEXT,
        IssueCode.DUPLICATE_ROW,
        IssueCode.NEAR_DUPLICATE_ROW,
        IssueCode.NEAR_DUPLICATES_SKIPPED,
    )
)
"""Remarks that change nothing of what is learnt; the report has them."""
_ONE_BY_ONE: Final = frozenset(
    (IssueCode.MEANINGFUL_FIELD_IGNORED, IssueCode.MISSING_VALUE_AS_TEXT, IssueCode.LENGTH_BIAS)
)


def warnings_of(dataset: Dataset) -> list[DatasetWarning]:
    """The weightier first; none of a dataset that is not ready."""
    if dataset.status is not DatasetStatus.READY:
        return []
    return [*_of_reading(dataset), *_of_report(dataset)]


def told(warnings: Iterable[DatasetWarning]) -> str:
    """The warnings as sentences, each with its dataset."""
    return " ".join(f"{warning.dataset_id}: {warning.detail}" for warning in warnings)


def as_data(warnings: Sequence[DatasetWarning]) -> dict[str, Any]:
    return {"warnings": [asdict(warning) for warning in warnings]} if warnings else {}


def _of_reading(dataset: Dataset) -> list[DatasetWarning]:
    found = []
    if dataset.rereading is not None:
        found.append(_warning(dataset, READ_OTHERWISE, str(dataset.rereading["detail"])))
    elif dataset.reader_version is None or dataset.reader_version < READER_VERSION:
        detail = (
            "An earlier version read this file, and its rows were not compared yet with what the file gives today; a "
            "job does so before it starts. To train on the file as it is read today, send it again."
        )
        found.append(_warning(dataset, NOT_COMPARED, detail))
    if dataset.num_rejected:
        verb = "is" if dataset.num_rejected == 1 else "are"
        total = counted(dataset.num_rows, "row")
        detail = f"{dataset.num_rejected:,} of {total} {verb} invalid and left out; see the report."
        found.append(_warning(dataset, ROWS_LEFT_OUT, detail, dataset.num_rejected))
    return found


def _of_report(dataset: Dataset) -> list[DatasetWarning]:
    counts: dict[str, int] = dataset.report.get("counts", {})
    issues: list[dict[str, Any]] = dataset.report.get("issues", [])
    found = []
    for code, kind in ISSUE_KINDS.items():
        number = counts.get(code, 0)
        if not number or kind.effect is not Effect.NOTED or code in _MINOR:
            continue
        details = [str(issue["detail"]) for issue in issues if issue["code"] == code]
        if code in _ONE_BY_ONE and details:
            found += [_warning(dataset, code, detail) for detail in details[:MAX_OF_A_CODE]]
            continue
        example = f" The first: {details[0]}" if details else ""
        meaning = f"{kind.meaning[0].upper()}{kind.meaning[1:]}{f' ({number:,} times)' if number > 1 else ''}"
        found.append(_warning(dataset, code, f"{meaning}.{example}", number))
    return found


def _warning(dataset: Dataset, code: str, detail: str, number: int = 1) -> DatasetWarning:
    return DatasetWarning(dataset_id=dataset.public_id, code=str(code), detail=detail, num_found=number)
