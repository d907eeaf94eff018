"""Accumulation of batch results in order: rows and fingerprints go to files, the rest is summed."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.datasets.check.issue_log import IssueLog
from core.datasets.faults import FileFault
from core.datasets.lint.lint import AcceptedRows
from core.datasets.options import Limits
from core.datasets.rows.fingerprints import NUM_MINIMA
from core.datasets.rows.row_processing import BatchResult
from core.datasets.rows.tally import Tally
from core.domain.dataset_rows import DatasetKind
from core.domain.issue_codes import IssueCode

MAX_BAD_START = 10_000
"""Rows of which none is good, after which reading on would only repeat the message."""


class Accumulation:
    def __init__(self, rows_path: Path, fingerprints_path: Path, log: IssueLog, limits: Limits) -> None:
        self.tally = Tally()
        self.num_source_rows = 0
        self.num_accepted = 0
        self.num_rejected = 0
        self.num_set_aside = 0
        self._rows_path = rows_path
        self._fingerprints_path = fingerprints_path
        self._log = log
        self._limits = limits
        self._num_row_bytes = 0
        self._sketches: list[npt.NDArray[np.uint32]] = []
        self._num_sketched = 0
        self._offsets: list[int] = []
        self._files = ExitStack()
        self._rows = self._files.enter_context(rows_path.open("wb"))
        self._fingerprints = self._files.enter_context(fingerprints_path.open("wb"))

    @property
    def num_rows(self) -> int:
        return self.num_accepted + self.num_rejected + self.num_set_aside

    def close(self) -> None:
        self._files.close()

    def add(self, result: BatchResult) -> None:
        """Add one batch's result. Raises FileFault where the batch has one, or a limit on rows is passed."""
        self._add_issues(result)
        self._add_sketches(result)
        self._rows.write(result.rows)
        fingerprints = result.fingerprints.records
        fingerprints["row"] += self.num_source_rows
        self._fingerprints.write(fingerprints.tobytes())
        self._num_row_bytes += len(result.rows)
        self.tally.merge(result.tally)
        fault = result.fault
        fault_row = self.num_source_rows + fault.row if fault is not None and fault.row is not None else None
        self.num_source_rows += result.num_source_rows
        self.num_accepted += result.num_accepted
        self.num_rejected += result.num_rejected
        self.num_set_aside += result.num_set_aside
        if fault is not None:
            raise FileFault(fault.code, fault.detail, line=fault.line, row=fault_row)
        self._require_limits()

    def _add_issues(self, result: BatchResult) -> None:
        self._log.counts.update(result.counts)
        for issue in result.issues:
            row = None if issue.row is None else self.num_source_rows + issue.row
            self._log.add(issue._replace(row=row))

    def _add_sketches(self, result: BatchResult) -> None:
        """Add the sketches of the first rows, up to the limit; a batch without sketches ends them."""
        room = self._limits.max_near_duplicate_rows - self._num_sketched
        sketches = result.fingerprints.sketches[:room]
        if not len(sketches) or self._num_sketched < self.num_accepted:
            return
        self._sketches.append(sketches)
        self._num_sketched += len(sketches)
        ends = np.cumsum(result.row_lengths[: len(sketches)], dtype=np.int64) + self._num_row_bytes
        self._offsets += [self._num_row_bytes, *ends[:-1].tolist()]

    def _require_limits(self) -> None:
        if max(self.num_source_rows, self.num_rows) > self._limits.max_rows:
            raise FileFault(
                IssueCode.TOO_MANY_ROWS, f"The file has more than {self._limits.max_rows:,} rows. Split it."
            )
        if self._num_row_bytes > self._limits.max_decompressed_bytes:
            raise FileFault(
                IssueCode.DECOMPRESSED_TOO_LARGE,
                "The rows are larger than allowed once made into pairs. Split the file, or keep fewer answers.",
            )
        if self.num_source_rows >= MAX_BAD_START and not self.num_accepted and self.num_rejected == self.num_rows:
            raise FileFault(
                IssueCode.TOO_MANY_BAD_ROWS,
                f"None of the first {self.num_source_rows:,} rows is good, so reading stopped there. "
                "The first issues say why.",
            )

    def accepted_rows(self, kind: DatasetKind) -> AcceptedRows:
        """Return the accepted rows as files; call it after `close`."""
        return AcceptedRows(
            kind=kind,
            num_rows=self.num_accepted,
            rows_path=self._rows_path,
            fingerprints_path=self._fingerprints_path,
            sketches=np.concatenate([np.empty((0, NUM_MINIMA), np.uint32), *self._sketches]),
            offsets=self._offsets,
        )


def issue_counts(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted((str(code), count) for code, count in counts.items() if count))
