"""Values passed between services and tables: the filter of a list of jobs, the head of a curve."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from core.domain.jobs.job_state import JobStatus


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    status: JobStatus | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class CurveHead(NamedTuple):
    """State of a job that a page of its curve includes."""

    status: JobStatus
    last_metric_seq: int
    rewind_seq: int
