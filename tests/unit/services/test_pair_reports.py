"""Reports on pairs: read once however many ask, within a bound of memory, sorted as their rows say."""

import json
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from core.domain.jobs.stored_files import StoredFile
from core.services.jobs import pair_reports
from core.services.jobs.pair_reports import FLAGS, SORT_KEYS, PairReports, PairsBusy, PairsQuery, ReadReport


def row(line: int, **values: Any) -> dict[str, Any]:
    base = dict.fromkeys(("reference_margin", "margin_first", "margin_last", "gradient_weight"), line * 0.5)
    return {"line": line, "split": "train", "mislabelled_score": 0.1, "flags": []} | base | values


def encoded(rows: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(found).encode() for found in rows]


@pytest.mark.parametrize("sort", [f"{sign}{key}" for sign in ("", "-") for key in SORT_KEYS])
@pytest.mark.parametrize(("flag", "split"), [(None, None), ("forgotten", None), (None, "validation")])
def test_pairs_are_selected_as_their_rows_say(sort: str, flag: str | None, split: Any) -> None:
    rows = [
        row(1, margin_last=3.0, flags=["forgotten"]),
        row(2, margin_last=None, split="validation"),
        row(3, margin_last=-1.0, flags=["truncated", "forgotten"]),
        row(4, margin_last=3.0, split="validation"),
    ]
    key = {"margin": "margin_last"}.get(sort.removeprefix("-"), sort.removeprefix("-"))
    chosen = [r for r in rows if (flag is None or flag in r["flags"]) and split in (None, r["split"])]
    known = sorted((r for r in chosen if r[key] is not None), key=lambda r: (r[key], r["line"]))
    expected = (known[::-1] if sort.startswith("-") else known) + [r for r in chosen if r[key] is None]
    found = ReadReport(encoded(rows)).select(PairsQuery(sort=sort, flag=flag, split=split))
    assert list(found) == expected
    assert found[0:2] == expected[:2]


def test_a_report_takes_about_twice_its_bytes() -> None:
    """Parsed whole, as before, it took 4.7 times."""
    lines = encoded([row(n, chosen_reward=n * 0.123456789, rejected_reward=-n * 0.123) for n in range(50_000)])
    num_bytes = sum(map(len, lines))
    tracemalloc.start()
    report = ReadReport(bytes(line) + b"" for line in lines)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(report.lines) == 50_000
    assert peak < 2.0 * num_bytes, f"{peak / num_bytes:.2f} times"


def stored(name: str, num_bytes: int) -> StoredFile:
    return StoredFile(path=name, key=name, num_bytes=num_bytes, sha256="0" * 64)


def test_many_first_readers_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    go_on = threading.Event()

    def read(_backend: Any, _job: str, file: StoredFile) -> Iterator[bytes]:
        reads.append(file.key)
        go_on.wait(10)
        yield encoded([row(1)])[0] + b"\n"

    monkeypatch.setattr(pair_reports, "read_file", read)
    reports = PairReports()
    found: list[ReadReport] = []
    ask = lambda: found.append(reports.find(None, "job_1", stored("a", 10)))  # type: ignore[arg-type] # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert (reads, len(found), len({id(report) for report in found})) == (["a"], 8, 1)


def test_what_is_kept_stays_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_reports, "read_file", lambda *_: iter([encoded([row(1)])[0]]))
    monkeypatch.setattr(pair_reports, "MAX_BYTES", 100)
    reports = PairReports()
    for name in ("a", "b", "c", "d"):
        reports.find(None, "job_1", stored(name, 40))  # type: ignore[arg-type]
        assert sum(size for size, _ in reports._cached.values()) <= 100
    assert list(reports._cached) == ["c", "d"]


def test_whoever_waits_for_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_reports, "_MAX_TURN_SECONDS", 0.01)
    reports = PairReports()
    with reports._reading, pytest.raises(PairsBusy):
        reports.find(None, "job_1", stored("a", 10))  # type: ignore[arg-type]
    assert len(FLAGS) < 32, "they are bits of a word"
