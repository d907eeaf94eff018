"""Options of a check, and its limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from core.domain.dataset_rows import DatasetKind

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Limits:
    max_bytes: int = 4 * GIB
    """Size of the file as sent."""
    max_decompressed_bytes: int = 16 * GIB
    max_ratio: int = 100
    """Decompressed over compressed bytes, once `ratio_free_bytes` have come out."""
    ratio_free_bytes: int = MIB
    max_line_bytes: int = MIB
    """Size of one row: a line, an array element, a table row. Two 400 kB responses fit; models see far less."""
    max_rows: int = 10_000_000
    max_depth: int = 64
    """A tree of 30 turns nests 60 deep."""
    max_keys: int = 256
    """Keys of one object."""
    max_messages: int = 1_000
    """Messages of one conversation."""
    max_answers: int = 16
    """Answers to one prompt: 16 ranked answers already make 120 pairs."""
    max_issues: int = 100_000
    """Written to the file of all issues; counts stay exact beyond."""
    max_report_errors: int = 1_000
    """Shown in the report itself."""
    max_report_warnings_per_code: int = 25
    max_near_duplicate_rows: int = 200_000
    long_row_chars: int = 32_768
    """Longer rows (about 8,000 tokens) are kept with a warning."""


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """Settings of an upload that say how its file is to be read."""

    kind: DatasetKind = DatasetKind.PREFERENCE
    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our name of a field → its name in the file."""
    values: Mapping[str, str] = field(default_factory=dict)
    """A verdict as the file has it → `first`, `second` or `tie`."""
    ignore: Sequence[str] = ()
    """Columns, and keys of messages (`messages[].name`), that are not to count, whatever their name."""
    ties: Literal["keep", "drop"] = "keep"
    """What becomes of pairs whose own scores are equal."""
    split: str | None = None
    """Which dataset of a tar that has several."""
    on_error: Literal["reject", "skip"] = "reject"
    content_encoding: str | None = None
    """Encoding of the upload (`gzip`, `zstd`, `identity`); checked against the bytes, which decide."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions(ReadingOptions):
    """Settings and limits of one check."""

    filename: str | None = None
    """Name that the client gives, if any: only compared with the content, never used as a path."""
    limits: Limits = field(default_factory=Limits)


def check_names(options: CheckOptions) -> None:
    """Check what the options name, before the file is read; raises InvalidRequest, as the check of the file would."""
    if options.format == "auto" and not options.columns and not options.values:
        return
    from core.datasets.recognition import validate_options  # noqa: PLC0415 - see LOCAL_IMPORTS

    validate_options(options)
