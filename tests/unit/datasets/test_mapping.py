"""The same data asked for by `columns` and by the file's own layout give the same rows, or it is said."""

from typing import Any

import pytest

from core.datasets.layouts.columns import Role
from core.datasets.layouts.layout import Layout
from core.datasets.layouts.registry import LAYOUTS, LAYOUTS_BY_NAME
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import InvalidRequest

from .conftest import Check
from .test_layouts import ASKED, BAD, CASES, GOOD, bot, user

SAYING = {"meaningful-field-ignored", "field-to-decide", "verdict-unclear", "prompt-column-differs"}
GENERIC = {
    DatasetKind.PREFERENCE: [("prompt", "chosen", "rejected"), ("prompt", "response_1", "response_2", "preference")],
    DatasetKind.DEMONSTRATION: [("prompt", "completion")],
    DatasetKind.UNPAIRED: [("prompt", "completion", "label")],
    DatasetKind.RESPONSES: [("prompt", "response")],
}
ROLES = {
    "prompt": Role.PROMPT,
    "response": Role.RESPONSE,
    "preference": Role.VERDICT,
    "label": Role.LABEL,
    **dict.fromkeys(("chosen", "rejected", "response_1", "response_2", "completion"), Role.RESPONSE),
}


def mappings(layout: Layout, row: dict[str, Any]) -> list[dict[str, str]]:
    """All ways of saying the row by the general names: its columns in their roles, in the order of the layout."""
    found = []
    for names in GENERIC[layout.kind]:
        free: dict[Role, list[str]] = {}
        for column, role in layout.columns.items():
            if column in row:
                free.setdefault(role, []).append(column)
        columns = {name: free[ROLES[name]].pop(0) for name in names if free.get(ROLES[name])}
        if len(columns) == len(names) and any(ours != theirs for ours, theirs in columns.items()):
            found.append(columns)
    return found


SAID = [(name, columns) for name in CASES for columns in mappings(LAYOUTS_BY_NAME[name], CASES[name][0])]


def test_many_layouts_can_be_said_by_columns() -> None:
    assert len({name for name, _ in SAID}) >= 20
    assert {LAYOUTS_BY_NAME[name].kind for name, _ in SAID} == {layout.kind for layout in LAYOUTS}


@pytest.mark.parametrize(("name", "columns"), SAID)
def test_by_layout_as_by_columns_or_it_is_said(check: Check, name: str, columns: dict[str, str]) -> None:
    row, kind = CASES[name][0], LAYOUTS_BY_NAME[name].kind
    by_layout = check([row], kind=kind)
    by_columns = check([row], kind=kind, columns=columns)
    if by_columns.is_ready:
        assert by_columns.rows == by_layout.rows or SAYING & by_columns.codes.keys(), by_columns.codes


@pytest.mark.parametrize(
    ("row", "columns", "layout"),
    [
        ({"question": ASKED, "chosen": GOOD, "rejected": BAD}, {"prompt": "question"}, "orca-pairs"),
        (
            {"instruction": "Which", "input": "colour?", "chosen": GOOD, "rejected": BAD},
            {"prompt": "instruction"},
            None,
        ),
        (
            {"query": ASKED, "response": GOOD, "rejected_response": BAD, "system": "Be brief."},
            {"prompt": "query", "chosen": "response", "rejected": "rejected_response"},
            "query-response",
        ),
        (
            {"instruction": ASKED, "input": "", "output": GOOD, "kto_tag": True},
            {"prompt": "instruction", "completion": "output", "label": "kto_tag"},
            "unpaired-alpaca",
        ),
    ],
)
def test_a_mapping_that_says_what_the_layout_says_changes_nothing(
    check: Check, row: Any, columns: Any, layout: str | None
) -> None:
    kind = "unpaired" if "label" in columns else "preference"
    checked = check([row], columns=columns, kind=kind)
    assert checked.result.format == layout or layout is None
    assert checked.rows == check([row], kind=kind).rows
    assert not checked.codes.keys() - {"one-label-only"}


def test_a_mapping_that_says_something_else_is_followed(check: Check) -> None:
    row = {"question": "Another?", "query": ASKED, "chosen": BAD, "rejected": GOOD}
    checked = check([row], columns={"prompt": "query", "chosen": "rejected", "rejected": "chosen"})
    assert checked.rows == [{"line": 1, "prompt": ASKED, "chosen": GOOD, "rejected": BAD}]
    assert checked.codes == {"meaningful-field-ignored": 1}


def test_rows_after_the_first_are_read_alike(check: Check) -> None:
    """The mapping agrees with the layout in the sample; later rows are built by the same layout."""
    rows = [{"question": f"{ASKED} {number}", "chosen": GOOD, "rejected": BAD} for number in range(400)]
    checked = check(rows, columns={"prompt": "question"})
    assert checked.rows[399]["prompt"] == [user(f"{ASKED} 399")]
    assert checked.rows[399]["chosen"] == [bot(GOOD)]


def test_a_column_in_whose_place_another_is_mapped_is_named(check: Check) -> None:
    row = {"prompt": "Not this.", "q": ASKED, "chosen": GOOD, "rejected": BAD}
    checked = check([row], columns={"prompt": "q"})
    assert checked.rows[0]["prompt"] == ASKED
    assert checked.codes == {"meaningful-field-ignored": 1}
    assert check([row], columns={"prompt": "q"}, ignore=["prompt"]).codes == {}


@pytest.mark.parametrize("role", ["system", "history"])
def test_a_named_system_prompt_or_history_is_the_layouts_own(check: Check, role: str) -> None:
    value = "Be brief." if role == "system" else [["Hi", "Hello"]]
    row = {"question": ASKED, "chosen": GOOD, "rejected": BAD}
    mapped = check([{**row, "x": value}], columns={role: "x", "prompt": "question"})
    assert mapped.rows[0]["prompt"] == check([{**row, role: value}]).rows[0]["prompt"]


def test_the_column_of_the_model_is_mapped(check: Check) -> None:
    rows = [{"q": "Why?", "a": "So.", "by": "base"}]
    found = check(rows, kind="responses", columns={"prompt": "q", "response": "a", "model": "by"})
    assert [row["model"] for row in found.rows] == ["base"]
    with pytest.raises(InvalidRequest, match="'model' is none of ours"):
        check(rows, kind="demonstration", columns={"model": "by"})
