"""Every test that docs/evidence/exactness.md names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def named_tests() -> list[tuple[str, str]]:
    """(file below tests/, function); a bare `::name` belongs to the file named last before it."""
    page = (ROOT / "docs" / "evidence" / "exactness.md").read_text(encoding="utf-8")
    found, file = [], ""
    for path, name in re.findall(r"`((?:\w+/)*\w+\.py)?(?:::(\w+))?[^`]*`", page):
        file = path or file
        if path or name:
            found.append((file, name))
    return found


def test_every_test_it_names_exists() -> None:
    named = [(file, name) for file, name in named_tests() if not file.startswith("benchmarks/")]
    assert len(named) > 50
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / "tests" / file).is_file() or f"def {name}" not in (ROOT / "tests" / file).read_text("utf-8")
    ]
    assert not missing


def test_all_pitfalls_are_on_it() -> None:
    page = (ROOT / "docs" / "evidence" / "exactness.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (T\d+) \|", page, re.MULTILINE) == [f"T{number}" for number in range(1, 24)]
