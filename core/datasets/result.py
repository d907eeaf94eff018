"""Result of a check."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NotRequired, TypedDict

from core.domain.dataset_rows import DatasetKind, RowIssue
from core.domain.errors import DomainError, ErrorKind, InvalidRequest, TooLarge, UnsupportedMedia

ROWS_FILE = "rows.jsonl"
ISSUES_FILE = "issues.jsonl"
FINGERPRINTS_FILE = ".fingerprints"
UNPACKED_FILE = ".unpacked"
"""What a check leaves only when it is killed."""


class LengthStatistics(TypedDict):
    """Lengths of one field over the accepted rows, in characters (code points) or turns."""

    min: int
    mean: float
    p50: int
    p90: int
    p95: int
    p99: int
    max: int


class PairStatistics(TypedDict):
    chosen_longer: int
    rejected_longer: int
    same_length: int
    longer_wins_share: float | None
    """Share of the pairs that differ in length whose longer response is the chosen one."""
    length_rule_accuracy: float | None
    """Accuracy of the better of the two rules "the longer wins" and "the shorter wins"."""


class DuplicateStatistics(TypedDict):
    duplicate_rows: int
    near_duplicate_rows: int
    reversed_pairs: int
    distinct_prompts: int
    most_rows_per_prompt: int
    near_duplicates_checked_rows: int


class RepeatedResponse(TypedDict):
    field: str
    num_rows: int
    first_line: int


class Statistics(TypedDict):
    """Statistics of the accepted rows and of the file."""

    container: str | None
    """`jsonl`, `json`, `csv`, `tsv`, `parquet`, `arrow` or `datasets`"""
    compression: str | None
    """`gzip`, `zstd`, `bzip2`, `xz` or null"""
    encoding: str | None
    num_source_rows: int
    """Rows of the file, before lists and trees are made into pairs."""
    ignored_fields: list[str]
    chars: dict[str, LengthStatistics]
    """Lengths by field: `prompt`, `chosen`, `rejected`, `response`."""
    turns: LengthStatistics | None
    """Messages per prompt; null for plain texts."""
    scripts: dict[str, float]
    """Share of the sampled rows by the writing system of most of their letters."""
    languages: dict[str, float]
    """Share of the sampled rows by language, guessed from frequent words."""
    labels: NotRequired[dict[str, int]]
    pairs: NotRequired[PairStatistics]
    duplicates: NotRequired[DuplicateStatistics]
    repeated_responses: NotRequired[list[RepeatedResponse]]
    refusal_shares: NotRequired[dict[str, float]]
    """Share of responses by field that begin as a refusal does."""
    first_lines: NotRequired[dict[str, int]]
    """First line with `tools`, and with `tool_calls`, where there is one; missing for a check that did not look."""


class Report(TypedDict):
    counts: dict[str, int]
    issues: list[RowIssue]
    issues_truncated: bool
    statistics: Statistics


class DatasetRejected(InvalidRequest):
    code = "dataset-rejected"
    title = "The dataset is rejected"


class DatasetTooLarge(TooLarge):
    code = "dataset-too-large"
    title = "The dataset is over a limit"


class DatasetUnsupported(UnsupportedMedia):
    code = "dataset-unsupported"
    title = "Not a dataset file"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Reason for which a file is refused as a whole."""

    code: str
    """Code of the issue that decided it, or `rows-rejected`."""
    kind: ErrorKind
    detail: str
    advice: tuple[Mapping[str, Any], ...] = ()
    """Options that the detail names, each tried on the file's first rows: the file would be accepted with them."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    verdict: Literal["ready", "rejected"]
    kind: DatasetKind
    format: str | None
    sha256: str
    """Digest of the file as sent, also where reading stopped early."""
    num_bytes: int
    num_rows: int
    num_accepted: int
    num_rejected: int
    num_set_aside: int
    report: Report
    refusal: Refusal | None = None
    """Set when the verdict is `rejected`."""

    def error(self) -> DomainError:
        """Return the refusal as an error to raise: 413, 415 or 422 by its kind, with the report as context."""
        if self.refusal is None:
            raise ValueError("the dataset was not refused")
        classes: dict[ErrorKind, type[DomainError]] = {
            "too_large": DatasetTooLarge,
            "unsupported": DatasetUnsupported,
        }
        error_class = classes.get(self.refusal.kind, DatasetRejected)
        return error_class(self.refusal.detail, report=self.report, reason=self.refusal.code)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
