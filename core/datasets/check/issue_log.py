"""Log of issues: all go to a file, the first ones, errors before warnings, into the report."""

from collections import Counter
from pathlib import Path

import orjson

from core.datasets.options import Limits
from core.datasets.rows.row_processing import FoundIssue
from core.domain.dataset_rows import RowIssue
from core.domain.issue_codes import ISSUE_KINDS


class IssueLog:
    def __init__(self, path: Path, limits: Limits) -> None:
        self._limits = limits
        self._stream = path.open("wb")
        self._num_written = 0
        self._errors: list[RowIssue] = []
        self._warnings: list[RowIssue] = []
        self._shown: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def close(self) -> None:
        self._stream.close()

    def add(self, issue: FoundIssue) -> None:
        """Write and show an issue within the limits; the caller counts, as not all that is counted is listed."""
        severity = ISSUE_KINDS[issue.code].severity
        entry = RowIssue(
            line=issue.line,
            row=issue.row,
            severity=severity,
            code=issue.code.value,
            detail=issue.detail,
            pointer=issue.pointer,
        )
        if self._num_written < self._limits.max_issues:
            self._num_written += 1
            self._stream.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
        if severity == "error":
            if len(self._errors) < self._limits.max_report_errors:
                self._errors.append(entry)
        elif self._shown[issue.code] < self._limits.max_report_warnings_per_code:
            self._shown[issue.code] += 1
            self._warnings.append(entry)

    def shown(self) -> list[RowIssue]:
        return self._errors + self._warnings

    @property
    def is_truncated(self) -> bool:
        """Whether the report lacks some of the issues counted."""
        return len(self._errors) + len(self._warnings) < sum(self.counts.values())
