"""A check of a file made on the spot, and what it wrote."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.datasets.check.check import check_file
from core.datasets.options import CheckOptions
from core.datasets.result import ISSUES_FILE, ROWS_FILE, CheckResult
from core.domain.dataset_rows import DatasetKind


@dataclass(frozen=True)
class Checked:
    result: CheckResult
    rows: list[dict[str, Any]]
    issues: list[dict[str, Any]]
    """All, from the file of issues."""

    @property
    def codes(self) -> dict[str, int]:
        return self.result.report["counts"]

    @property
    def detail(self) -> str:
        assert self.result.refusal is not None
        return self.result.refusal.detail

    def lines(self, code: str) -> list[int | None]:
        return [issue["line"] for issue in self.issues if issue["code"] == code]

    @property
    def is_ready(self) -> bool:
        return self.result.verdict == "ready"


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


Check = Callable[..., Checked]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """`check(bytes or rows, **options)`: rows are written as JSON Lines."""
    count = 0

    def run(content: bytes | list[Any], **options: Any) -> Checked:
        nonlocal count
        count += 1
        source, output = tmp_path / f"source-{count}", tmp_path / f"output-{count}"
        source.write_bytes(content if isinstance(content, bytes) else jsonl(content))
        output.mkdir()
        kind = DatasetKind(options.pop("kind", "preference"))
        result = check_file(source, CheckOptions(kind=kind, **options), output)
        assert result.num_rows == result.num_accepted + result.num_rejected + result.num_set_aside
        left = {path.name for path in output.iterdir()}
        assert left == ({ROWS_FILE, ISSUES_FILE} if result.verdict == "ready" else {ISSUES_FILE})
        return Checked(result, read_jsonl(output / ROWS_FILE), read_jsonl(output / ISSUES_FILE))

    return run


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.fixture
def pairs() -> Callable[[int], list[dict[str, str]]]:
    """So many distinct explicit pairs."""

    def make(num_rows: int) -> list[dict[str, str]]:
        return [
            {
                "prompt": f"Name a colour, number {index}.",
                "chosen": f"Blue, of course ({index}).",
                "rejected": f"Colours are boring ({index}).",
            }
            for index in range(num_rows)
        ]

    return make
