"""Configurations out of docs/operate, so that the pages cannot drift from what is tested."""

import re
from pathlib import Path

PAGES = Path(__file__).resolve().parents[2] / "docs" / "operate"


def blocks(page: str, heading: str) -> list[str]:
    """Return the fenced blocks below a heading of a page, in their order."""
    text = (PAGES / page).read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {heading}"
    return re.findall(r"^```[a-z]+\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)


def blocks_below(page: str, heading: str) -> list[str]:
    """Return the fenced blocks below a heading of the third level."""
    text = (PAGES / page).read_text(encoding="utf-8")
    found = re.search(rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {heading}"
    return re.findall(r"^```[a-z]+\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)


def cells(page: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the table below a heading of the third level: first cell -> the others."""
    text = (PAGES / page).read_text(encoding="utf-8")
    section = text.partition(f"\n### {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in rows}


def table(page: str, heading: str) -> dict[str, tuple[str, str]]:
    """Return the rows of the table below a heading: first cell -> the code in the second and the third."""
    text = (PAGES / page).read_text(encoding="utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cell = r"(?:`` ?(.+?) ?``|`(.+?)`)"
    rows = re.findall(rf"^\| ([^|`]+?) \| {cell} \| {cell} \|$", section, re.MULTILINE)
    assert rows, f"{page} has no table below {heading}"
    return {
        name: (double or single, other_double or other_single)
        for name, double, single, other_double, other_single in rows
    }


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """Replace what stands for the reader's own names; each has to be there."""
    for old, new in pairs:
        assert old in text, f"the documented configuration has no {old!r}"
        text = text.replace(old, new)
    return text
