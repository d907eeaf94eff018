"""Rows left out and turned round."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.datasets.editing import UnknownLines, edit_rows


def rows_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_lines_are_left_out_and_turned_round(tmp_path: Path) -> None:
    pairs = [{"line": n, "prompt": "p", "chosen": f"c{n}", "rejected": f"r{n}"} for n in (1, 3, 7)]
    source = rows_file(tmp_path / "rows", pairs)
    assert edit_rows(source, tmp_path / "out", exclude_lines=[1], swap_lines=[7]) == 2
    kept = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert kept == [pairs[1], {"line": 7, "prompt": "p", "chosen": "r7", "rejected": "c7"}]


def test_the_label_of_an_unpaired_row_is_turned(tmp_path: Path) -> None:
    source = rows_file(tmp_path / "rows", [{"line": 2, "prompt": "p", "response": "r", "label": True}])
    edit_rows(source, tmp_path / "out", exclude_lines=[], swap_lines=[2])
    assert json.loads((tmp_path / "out").read_text())["label"] is False


def test_lines_that_no_row_has_are_named(tmp_path: Path) -> None:
    source = rows_file(tmp_path / "rows", [{"line": 2, "prompt": "p", "chosen": "c", "rejected": "r"}])
    with pytest.raises(UnknownLines, match="line 3, 9;"):
        edit_rows(source, tmp_path / "out", exclude_lines=[2, 9], swap_lines=[3])
