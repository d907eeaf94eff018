"""Lint of a dataset as a whole: duplicates, contradictions, one-sidedness. Warnings only."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from core.datasets.lint.duplicates import Repetition, Rows, count_values, find_repeated_pairs, load_fingerprints
from core.datasets.lint.near_duplicates import find_near_duplicates
from core.datasets.result import DuplicateStatistics, RepeatedResponse, Statistics
from core.datasets.rows.row_processing import FoundIssue
from core.domain.dataset_rows import DatasetKind
from core.domain.issue_codes import IssueCode

_MIN_ROWS_FOR_BIAS: Final = 50
_MAX_LENGTH_RULE_ACCURACY: Final = 0.8
_MIN_REPEATED: Final = 10
_REPEATED_SHARE: Final = 0.01
_MAX_REPEATED_LISTED: Final = 10


@dataclass(frozen=True, kw_only=True)
class AcceptedRows:
    """Input of the lint: the normalised rows and their fingerprints, on disk."""

    kind: DatasetKind
    num_rows: int
    rows_path: Path
    fingerprints_path: Path
    sketches: npt.NDArray[np.uint32]
    """[first rows, NUM_MINIMA]"""
    offsets: list[int]
    """Where those rows begin in the file of rows."""


class Lint:
    def __init__(self, rows: AcceptedRows, max_issues: int) -> None:
        self._rows = rows
        self._max_issues = max_issues
        self._prints: Rows = load_fingerprints(str(rows.fingerprints_path), rows.num_rows)
        self.totals: dict[IssueCode, int] = {}
        """How often each code was found, listed or not."""

    def issues(self, statistics: Statistics) -> Iterator[FoundIssue]:
        """Return the findings and put their numbers into `statistics`. Needs at least one row."""
        yield from self._repetitions(statistics)
        yield from self._repeated_responses(statistics)
        yield from self._one_sidedness(statistics)

    def _repetitions(self, statistics: Statistics) -> Iterator[FoundIssue]:
        pairs = find_repeated_pairs(self._prints, self._max_issues)
        near = self._near_duplicates({found.place for found in pairs.duplicates})
        prompts = count_values(self._prints, "prompt", len(self._prints) + 1)
        statistics["duplicates"] = DuplicateStatistics(
            duplicate_rows=pairs.num_duplicates,
            near_duplicate_rows=len(near),
            reversed_pairs=pairs.num_reversed,
            distinct_prompts=prompts.num_distinct,
            most_rows_per_prompt=prompts.most,
            near_duplicates_checked_rows=len(self._rows.sketches),
        )
        yield from self._listed(
            IssueCode.DUPLICATE_ROW, pairs.duplicates, pairs.num_duplicates, "The row is the same as line {line}."
        )
        yield from self._listed(
            IssueCode.REVERSED_PAIR,
            pairs.reversals,
            pairs.num_reversed,
            "Line {line} has the same pair the other way round: what one calls chosen, the other calls rejected.",
        )
        yield from self._listed(
            IssueCode.NEAR_DUPLICATE_ROW, near, len(near), "The row is nearly the same as line {line}."
        )
        if len(self._rows.sketches) < self._rows.num_rows:
            yield self._whole(
                IssueCode.NEAR_DUPLICATES_SKIPPED,
                f"Near-duplicates were looked for in the first {len(self._rows.sketches):,} rows only; "
                "exact duplicates in all.",
            )

    def _near_duplicates(self, duplicates: set[int]) -> list[Repetition]:
        if len(self._rows.sketches) < 2:
            return []
        with self._rows.rows_path.open("rb") as file:
            return find_near_duplicates(self._rows.sketches, self._rows.offsets, file, duplicates)

    def _repeated_responses(self, statistics: Statistics) -> Iterator[FoundIssue]:
        min_rows = max(_MIN_REPEATED, int(self._rows.num_rows * _REPEATED_SHARE))
        names = (
            {"first": "chosen", "second": "rejected"}
            if self._rows.kind is DatasetKind.PREFERENCE
            else {"first": "response"}
        )
        repeated = []
        for column, name in names.items():
            found = count_values(self._prints, "first" if column == "first" else "second", min_rows)
            for num_rows, place in found.frequent[:_MAX_REPEATED_LISTED]:
                line = int(self._prints[place]["line"])
                repeated.append(RepeatedResponse(field=name, num_rows=num_rows, first_line=line))
                yield self._at(
                    IssueCode.REPEATED_RESPONSE,
                    place,
                    f"{num_rows:,} rows have this very text as their {name} response.",
                    f"/{name}",
                )
        statistics["repeated_responses"] = repeated

    def _one_sidedness(self, statistics: Statistics) -> Iterator[FoundIssue]:
        pairs = statistics.get("pairs")
        if pairs and pairs["chosen_longer"] + pairs["rejected_longer"] >= _MIN_ROWS_FOR_BIAS:
            accuracy = pairs["length_rule_accuracy"] or 0.0
            if accuracy > _MAX_LENGTH_RULE_ACCURACY:
                side = "longer" if (pairs["longer_wins_share"] or 0.0) >= 0.5 else "shorter"
                yield self._whole(
                    IssueCode.LENGTH_BIAS,
                    f"The {side} response is the chosen one in {accuracy:.0%} of the pairs: a model can learn length "
                    "instead of quality.",
                )
        labels = statistics.get("labels")
        if labels and len(labels) == 1:
            yield self._whole(
                IssueCode.ONE_LABEL_ONLY,
                f"All rows have the label {next(iter(labels))}: there is nothing to tell apart.",
            )

    def _listed(self, code: IssueCode, found: list[Repetition], total: int, detail: str) -> Iterator[FoundIssue]:
        if total:
            self.totals[code] = total
        for place, earlier in found:
            yield self._place(code, place, detail.format(line=int(self._prints[earlier]["line"])), None)

    def _at(self, code: IssueCode, place: int, detail: str, pointer: str | None) -> FoundIssue:
        self.totals[code] = self.totals.get(code, 0) + 1
        return self._place(code, place, detail, pointer)

    def _place(self, code: IssueCode, place: int, detail: str, pointer: str | None) -> FoundIssue:
        fingerprint = self._prints[place]
        return FoundIssue(int(fingerprint["line"]), int(fingerprint["row"]), code, detail, pointer)

    def _whole(self, code: IssueCode, detail: str) -> FoundIssue:
        self.totals[code] = self.totals.get(code, 0) + 1
        return FoundIssue(None, None, code, detail, None)
