"""Pages of rows from a line on and by a text, in files of many and of long rows."""

import orjson
import pytest

from core.services.datasets import row_pages
from core.services.datasets.row_pages import RowsQuery, read_page
from core.storage.local import LocalObjectStore

LINES = range(2, 9000, 3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalObjectStore:
    made = LocalObjectStore(tmp_path_factory.mktemp("store"))
    rows = [
        {
            "line": n,
            "prompt": f"Question {n}" + " long" * (60_000 if n in (302, 8000) else 20),
            "chosen": [{"content": 'He said "Ja"'}],
        }
        for n in LINES
    ]
    made.put_bytes("rows", b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return made


def lines(store: LocalObjectStore, **query: object) -> list[int]:
    return [row["line"] for row in read_page(store, "rows", RowsQuery(**query)).data]  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", [1, 2, 3, 301, 302, 303, 4500, 7999, 8000, 8001, 8998, 8999, 9001])
def test_a_page_begins_at_a_line(store: LocalObjectStore, wanted: int) -> None:
    assert lines(store, line=wanted, limit=2) == [n for n in LINES if n >= wanted][:2]


def test_pages_of_a_search_hold_every_row_once(store: LocalObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_pages, "MAX_SEARCHED_BYTES", 100_000)
    found, cursor, num_pages = [], None, 0
    while True:
        page = read_page(store, "rows", RowsQuery(search="question 80", limit=3, cursor=cursor))
        found += [row["line"] for row in page.data]
        cursor, num_pages = page.next_cursor, num_pages + 1
        if cursor is None:
            break
    assert found == [n for n in LINES if str(n).startswith("80")]
    assert num_pages > len(found) / 3
    assert len(lines(store, search='said "JA"', limit=5)) == 5
    assert lines(store, search="prompt") == []
