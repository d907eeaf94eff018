"""Every container, compression and encoding: the same rows, on the lines that the user sees."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from .conftest import Check, jsonl

Pairs = Callable[[int], list[dict[str, str]]]
Write = Callable[[list[dict[str, str]]], bytes]


def table(rows: list[dict[str, str]], delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def parquet(rows: list[dict[str, str]]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


def text(rows: list[dict[str, str]]) -> str:
    return jsonl(rows).decode()


SOURCES: dict[str, tuple[Write, str, int]] = {
    "json lines": (jsonl, "jsonl", 1),
    "crlf": (lambda rows: jsonl(rows).replace(b"\n", b"\r\n"), "jsonl", 1),
    "old mac": (lambda rows: jsonl(rows).replace(b"\n", b"\r"), "jsonl", 1),
    "no final newline": (lambda rows: jsonl(rows).rstrip(b"\n"), "jsonl", 1),
    "blank lines first": (lambda rows: b"\n \n" + jsonl(rows), "jsonl", 3),
    "byte order mark": (lambda rows: codecs.BOM_UTF8 + jsonl(rows), "jsonl", 1),
    "utf-16 le": (lambda rows: codecs.BOM_UTF16_LE + text(rows).encode("utf-16-le"), "jsonl", 1),
    "utf-16 be": (lambda rows: codecs.BOM_UTF16_BE + text(rows).encode("utf-16-be"), "jsonl", 1),
    "utf-32 le": (lambda rows: codecs.BOM_UTF32_LE + text(rows).encode("utf-32-le"), "jsonl", 1),
    "array on one line": (lambda rows: json.dumps(rows).encode(), "json", 1),
    "array, indented": (lambda rows: json.dumps(rows, indent=1).encode(), "json", 2),
    "csv": (table, "csv", 2),
    "semicolons": (lambda rows: table(rows, ";"), "csv", 2),
    "tsv": (lambda rows: table(rows, "\t"), "tsv", 2),
    "old mac csv": (lambda rows: table(rows).replace(b"\r\n", b"\r"), "csv", 2),
    "unicode text of Excel": (
        lambda rows: codecs.BOM_UTF16_LE + table(rows, "\t").decode().encode("utf-16-le"),
        "tsv",
        2,
    ),
    "a line that names the separator": (lambda rows: b"sep=;\r\n" + table(rows, ";"), "csv", 3),
    "parquet": (parquet, "parquet", 1),
}
COMPRESSIONS: dict[str | None, Callable[[bytes], bytes]] = {
    None: bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "bzip2 in two streams": lambda content: bz2.compress(content[:100]) + bz2.compress(content[100:]),
    "xz in two streams": lambda content: lzma.compress(content[:100]) + lzma.compress(content[100:]),
    "gzip in two members": lambda content: gzip.compress(content[:100]) + gzip.compress(content[100:]),
    "zstd in two frames": lambda content: zstandard.compress(content[:100]) + zstandard.compress(content[100:]),
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", SOURCES)
def test_the_rows_are_the_same(check: Check, pairs: Pairs, name: str, compression: str | None) -> None:
    write, container, first_line = SOURCES[name]
    rows = pairs(7)
    rows[3]["prompt"] = 'With, a comma; a "quote", 日本 \N{LINE SEPARATOR} and an emoji 💾'
    if container == "parquet" and compression:
        assert check(COMPRESSIONS[compression](write(rows))).codes == {"nested-compression": 1}
        return
    checked = check(COMPRESSIONS[compression](write(rows)))
    assert checked.is_ready, checked.detail
    statistics = checked.result.report["statistics"]
    assert (statistics["container"], statistics["compression"]) == (container, compression and compression.split()[0])
    assert [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in checked.rows] == rows
    assert checked.rows[0]["line"] == first_line


def test_lines_are_those_of_the_file(check: Check, pairs: Pairs) -> None:
    rows = pairs(3)
    blank = b"\n\n".join(jsonl([row]).strip() for row in rows) + b"\nnot json\n"
    checked = check(blank, on_error="skip")
    assert [row["line"] for row in checked.rows] == [1, 3, 5]
    assert checked.lines("invalid-json") == [6]

    spanning = table([{**rows[0], "chosen": "two\nlines"}, rows[1]]) + b"too,few\n"
    checked = check(spanning, on_error="skip")
    assert [row["line"] for row in checked.rows] == [2, 4]
    assert checked.lines("wrong-cell-count") == [5]

    array = json.dumps(rows, indent=2).encode()[:-2] + b',\n  {"prompt": 1}\n]'
    checked = check(array, on_error="skip")
    assert [row["line"] for row in checked.rows] == [2, 7, 12]
    assert [issue["line"] for issue in checked.issues] == [17]


def test_the_row_number_counts_from_zero_over_all_batches(check: Check, pairs: Pairs) -> None:
    content = jsonl(pairs(5000)) + b"not json\n"
    (issue,) = [found for found in check(content, on_error="skip").issues if found["code"] == "invalid-json"]
    assert (issue["line"], issue["row"]) == (5001, 5000)


def test_cells_with_messages(check: Check) -> None:
    prompt, good, bad = ([{"role": role, "content": text}] for role, text in
                         (("user", "Hi"), ("assistant", "Hello"), ("assistant", "No")))  # fmt: skip
    content = table([{"prompt": json.dumps(prompt), "chosen": json.dumps(good), "rejected": json.dumps(bad)}])
    (row,) = check(content).rows
    assert row == {"line": 2, "prompt": prompt, "chosen": good, "rejected": bad}


def test_nothing_else_is_left_and_the_digest_is_that_of_the_file(check: Check, tmp_path: Path) -> None:
    content = gzip.compress(jsonl([{"prompt": "a", "chosen": "b", "rejected": "c"}]))
    result = check(content).result
    assert result.num_bytes == len(content)
    assert not list(tmp_path.rglob(".fingerprints"))
