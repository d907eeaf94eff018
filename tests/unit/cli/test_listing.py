"""Lists: whole ids in a terminal of any width and in a pipe; JSON lines and ids alone for programs."""

import json
from typing import Any

import pytest
import typer
from rich.console import Console

from preftune.cli import listing
from preftune.cli.listing import Column, collect, named, print_list

IDS = [f"job_01m8n1v0ebsrv3d0wzcjpbi{number:03}" for number in range(3)]
ITEMS = [{"id": one, "name": "a name of quite some length", "note": "x" * 40, "rows": 1234} for one in IDS]
COLUMNS = (named("id", is_whole=True), named("name"), named("note", may_go=True), named("rows", is_number=True))


def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int | None, **options: Any
) -> str:
    terminal = {} if width is None else {"force_terminal": True, "color_system": None, "width": width}
    monkeypatch.setattr(listing, "out", Console(**{"width": 500, **terminal}))
    print_list(options.pop("items", ITEMS), COLUMNS, **{"as_json": False, "quiet": False, **options})
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [20, 40, 60, 80, 125, 300, None])
def test_ids_are_whole_at_any_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int | None
) -> None:
    lines = printed(monkeypatch, capsys, width).splitlines()
    assert [line.split()[0] for line in lines] == ["id", *IDS]


def test_a_narrow_terminal_shortens_names_and_leaves_columns_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for width in (60, 80, 125):
        lines = printed(monkeypatch, capsys, width).splitlines()
        assert max(map(len, lines)) <= width
    assert "…" not in printed(monkeypatch, capsys, 300)
    assert "note" not in printed(monkeypatch, capsys, 55)
    assert "a name of quite…  1,234" in printed(monkeypatch, capsys, 55)


def test_a_pipe_has_everything_in_one_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(monkeypatch, capsys, None, items=[{**ITEMS[0], "name": "n" * 700}]).splitlines()
    assert len(lines) == 2
    assert lines[1].split() == [IDS[0], "n" * 700, "x" * 40, "1,234"]


def test_json_and_ids(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert [json.loads(line) for line in printed(monkeypatch, capsys, 20, as_json=True).splitlines()] == ITEMS
    assert printed(monkeypatch, capsys, 20, quiet=True).splitlines() == IDS
    with pytest.raises(typer.Exit) as caught:
        printed(monkeypatch, capsys, 20, quiet=True, as_json=True)
    assert caught.value.exit_code == 2


def test_text_of_users_stays_text_of_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(monkeypatch, capsys, None, items=[{**ITEMS[0], "name": "[red]a\x1b[31m\nb\r"}])
    assert "[red]a�[31m�b�" in text
    assert len(text.splitlines()) == 2


def test_wide_characters_keep_the_columns() -> None:
    column = Column(title="name", value=lambda item: item["name"])
    line = listing._line(["漢字漢字漢字", "x"], [column, named("id")], {"name": 8, "id": 1})
    assert line == "漢字漢 …  x"


def test_pages_are_collected_up_to_the_limit() -> None:
    asked: list[int] = []

    def page(*, limit: int, cursor: str | None) -> dict[str, Any]:
        asked.append(limit)
        start = int(cursor or 0)
        return {"data": list(range(start, min(start + limit, 250))), "next_cursor": str(start + limit)}

    assert collect(page, 120) == (list(range(120)), True)
    assert asked == [100, 20]
    assert collect(lambda **_: {"data": [1], "next_cursor": None}, 5) == ([1], False)
