"""`docs/guide/layouts.md` has the table of what each column becomes, as declared. Run this file to write it."""

from pathlib import Path

from core.datasets.layouts.columns import CONTEXT, PREAMBLE, Role
from core.datasets.layouts.layout import Layout
from core.datasets.layouts.registry import LAYOUTS_BY_NAME

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "layouts.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def shown(layout: Layout) -> str:
    roles: dict[Role, list[str]] = {}
    for name, role in layout.columns.items():
        if not name.startswith("prediction ") or name == "prediction 1":
            roles.setdefault(role, []).append(f"`{name}`")
    return "; ".join(f"{role}: {', '.join(names)}" for role, names in roles.items())


def table() -> str:
    lines = ["| layout | what each column becomes | source |", "|---|---|---|"]
    layouts = LAYOUTS_BY_NAME.values()
    lines += [f"| `{layout.name}` | {shown(layout)} | {layout.source or layout.title} |" for layout in layouts]
    common = [f"`{name}` ({role})" for name, role in {**PREAMBLE, **CONTEXT}.items()]
    return "\n".join([*lines, "", f"In every layout that does not declare them otherwise: {', '.join(common)}.", ""])


def page_with_table() -> str:
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return head + BEGIN + table() + END + rest.partition(END)[2]


def test_the_page_has_the_table_as_declared() -> None:
    is_current = PAGE.read_text(encoding="utf-8") == page_with_table()
    assert is_current, "the page is not that of the layouts; write it: python tests/unit/datasets/test_layout_table.py"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(), encoding="utf-8")
