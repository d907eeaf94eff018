"""Checks and normalises one file: the whole verdict, in this process."""

from pathlib import Path

from core.datasets.options import CheckOptions
from core.datasets.result import CheckResult
from core.datasets.run import CheckRun


def check_file(source: Path, options: CheckOptions, output_dir: Path, *, num_workers: int = 1) -> CheckResult:
    """Read `source` to its end and judge it.

    Writes `rows.jsonl` (normalised rows in the order of the file; absent when the file is refused) and `issues.jsonl`
    (every issue) into `output_dir`. Nothing else is left there. The answer depends on the bytes and the options only,
    not on `num_workers`.

    Raises:
        InvalidRequest: the options themselves are wrong (an unknown format, an unknown field in `columns`).
    """
    return CheckRun(source, options, output_dir, num_workers=num_workers).run()
