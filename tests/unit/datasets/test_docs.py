"""`docs/guide/datasets.md` shows every format and every code as the code has them. Run this file to write them."""

import re
from pathlib import Path

from core.datasets.layouts.registry import LAYOUTS_BY_NAME
from core.domain.issue_codes import ISSUE_KINDS, Effect, IssueCode
from core.settings import Settings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "datasets.md"
HEADINGS = {
    Effect.FILE_REFUSED: "The file is refused",
    Effect.ROW_REFUSED: "The row is malformed",
    Effect.ROW_SET_ASIDE: "The row is set aside",
    Effect.NOTED: "Worth knowing",
}
STATUSES = {"too_large": " (413)", "unsupported": " (415)", "invalid": ""}


def tables() -> dict[str, list[str]]:
    """Rows of each table by the heading above it."""
    formats = [f"| `{layout.name}` | {layout.kind.value} | {layout.title} |" for layout in LAYOUTS_BY_NAME.values()]
    return {"Formats": formats} | {heading: codes(effect) for effect, heading in HEADINGS.items()}


def codes(effect: Effect) -> list[str]:
    kinds = [(code, kind) for code, kind in ISSUE_KINDS.items() if kind.effect is effect]
    statuses = STATUSES if effect is Effect.FILE_REFUSED else dict.fromkeys(STATUSES, "")
    return [f"| `{code.value}` | {kind.meaning}{statuses[kind.error_kind]} | {kind.remedy} |" for code, kind in kinds]


def page_with_tables() -> str:
    text = PAGE.read_text(encoding="utf-8")
    for heading, rows in tables().items():
        head, mark, rest = text.partition(f" {heading}\n")
        before, line, table = rest.partition("|---|---|---|\n")
        text = head + mark + before + line + "".join(f"{row}\n" for row in rows) + re.sub(r"\A(\|.*\n)*", "", table)
    return text


def test_every_code_has_a_meaning() -> None:
    assert ISSUE_KINDS.keys() == set(IssueCode)


def test_the_page_lists_formats_and_codes_as_the_code_has_them() -> None:
    is_current = PAGE.read_text(encoding="utf-8") == page_with_tables()
    assert is_current, "tables differ from layouts and codes; write them anew: python tests/unit/datasets/test_docs.py"


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
        assert shown in " ".join(PAGE.read_text(encoding="utf-8").split()), shown


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(), encoding="utf-8")
