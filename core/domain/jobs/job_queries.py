"""Values passed between services and tables: the filter of a list of jobs, the head of a curve."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from core.domain.jobs.job_state import JobStatus

JobSort = Literal[
    "created", "-created", "name", "-name", "finished", "-finished",
    "loss", "-loss", "accuracy", "-accuracy", "margin", "-margin",
]  # fmt: skip
"""Order of a list; `-` for the largest first. The last three are held-out results."""
TAGS_KEY, NOTES_KEY = "tags", "notes"
"""Metadata that people write: tags with commas between them, and a text."""


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs a list holds, and in which order."""

    status: JobStatus | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    variant: str | None = None
    base_model: str | None = None
    dataset_id: str | None = None
    """Trained on, demonstrated or held out."""
    tag: str | None = None
    search: str | None = None
    """Part of name, id, tags or notes."""
    sort: JobSort = "-created"


class JobPosition(NamedTuple):
    """Place of a job in a sorted list."""

    value: str | float | None
    """What the list is sorted by."""
    job_id: str


class CurveHead(NamedTuple):
    """State of a job that a page of its curve includes."""

    status: JobStatus
    last_metric_seq: int
    rewind_seq: int
