"""Small files as real programs wrote them (`make test-writers` makes them anew): each has the meaning it was given."""

from pathlib import Path

import pytest
from written_pairs import MESSAGES, PLAIN, normalised

from .conftest import Check

FILES = sorted((Path(__file__).parent / "written").iterdir())
SHAPES = {"plain": PLAIN, "messages": MESSAGES}


def test_there_are_files() -> None:
    assert len(FILES) >= 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_rows_are_those_that_were_written(check: Check, path: Path) -> None:
    checked = check(path.read_bytes())
    assert checked.is_ready, checked.detail
    assert normalised(checked.rows) == SHAPES[path.name.partition("-")[0]]
