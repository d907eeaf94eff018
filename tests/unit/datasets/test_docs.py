"""`docs/guide/datasets.md` shows every format and every code, as the code has them, and no other."""

import re
from pathlib import Path

from core.datasets.layouts.registry import LAYOUTS
from core.domain.issue_codes import ISSUE_KINDS, Effect, IssueCode
from core.settings import Settings

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "guide" / "datasets.md").read_text(encoding="utf-8")
HEADINGS = {
    Effect.FILE_REFUSED: "The file is refused",
    Effect.ROW_REFUSED: "The row is malformed",
    Effect.ROW_SET_ASIDE: "The row is set aside",
    Effect.NOTED: "Worth knowing",
}
STATUSES = {"too_large": " (413)", "unsupported": " (415)", "invalid": ""}


def rows_below(heading: str) -> list[tuple[str, ...]]:
    """Cells of the first table below the heading; the name without its marks."""
    text = PAGE.partition(f" {heading}\n")[2]
    text = re.split(r"\n#+ ", text)[0]
    found = re.findall(r"^\| `([^`]+)` \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return [tuple(cells) for cells in found]


def test_every_code_has_a_meaning() -> None:
    assert ISSUE_KINDS.keys() == set(IssueCode)


def test_the_page_lists_the_codes_by_what_they_do() -> None:
    for effect, heading in HEADINGS.items():
        expected = [
            (
                code.value,
                kind.meaning + (STATUSES[kind.error_kind] if effect is Effect.FILE_REFUSED else ""),
                kind.remedy,
            )
            for code, kind in ISSUE_KINDS.items()
            if kind.effect is effect
        ]
        assert rows_below(heading) == expected


def test_the_page_lists_the_formats() -> None:
    assert rows_below("Formats") == [(layout.name, layout.kind.value, layout.title) for layout in LAYOUTS]


def test_the_page_tells_the_limits_as_they_are() -> None:
    settings = Settings()
    gib, mib = 1024**3, 1024**2
    for shown in (
        f"{settings.max_upload_bytes // gib} GiB as sent",
        f"{settings.max_decompressed_bytes // gib} GiB decompressed",
        f"{settings.max_rows:,} rows",
        f"a row may have {settings.max_line_bytes // mib} MiB",
        f"{settings.check_memory_bytes // mib} MiB) and time",
    ):
        assert shown in " ".join(PAGE.split()), shown
