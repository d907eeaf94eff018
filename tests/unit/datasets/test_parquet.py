"""Parquet as programs write it: the meaning of each type, columns that nobody uses, and row groups of any size."""

import io
import json
import random
import subprocess
import sys
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.datasets.check import check_process
from core.datasets.check.check_process import CheckOutOfMemory, CheckTimedOut, check_in_child
from core.datasets.messages.undecoded import Undecoded
from core.datasets.options import CheckOptions, Limits
from core.datasets.sources.batches import Record
from core.datasets.sources.parquet import read_parquet

from .conftest import Check

TEXTS = {
    "prompt": ["Name a fruit.", 'Two lines, "quoted".', "How many?"],
    "chosen": ["Apple.", "One\nTwo", "12"],
    "rejected": ["I don't know.", "C:\\new\ttable", "007"],
}
PLAIN = [dict(zip(TEXTS, values, strict=True)) for values in zip(*TEXTS.values(), strict=True)]
MESSAGES = [
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": row["prompt"]}],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }
    for row in PLAIN
]
WANTED = ("prompt", "chosen", "rejected")


def written(table: pa.Table, **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def normalised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "line"} for row in rows]


def as_json(values: list[Any]) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array([json.dumps(value) for value in values]))


def as_maps(values: list[Any]) -> pa.Array:
    pairs = [[list(message.items()) for message in value] for value in values]
    return pa.array(pairs, pa.list_(pa.map_(pa.string(), pa.string())))


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in WANTED}


CONVERSATIONS = columns_of(MESSAGES)
JSON_CONTENT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.json_())]))


def with_json_content(values: list[Any]) -> pa.Array:
    roles = pa.array([message["role"] for value in values for message in value])
    contents = as_json([message["content"] for value in values for message in value])
    offsets = [0]
    for value in values:
        offsets.append(offsets[-1] + len(value))
    structs = pa.StructArray.from_arrays([roles, contents], ["role", "content"])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)


TABLES: dict[str, tuple[pa.Table, list[dict[str, Any]]]] = {
    "json messages": (pa.table({name: as_json(values) for name, values in CONVERSATIONS.items()}), MESSAGES),
    "json texts": (pa.table({name: as_json(values) for name, values in TEXTS.items()}), PLAIN),
    "json contents": (pa.table({name: with_json_content(values) for name, values in CONVERSATIONS.items()}), MESSAGES),
    "maps": (pa.table({name: as_maps(values) for name, values in CONVERSATIONS.items()}), MESSAGES),
    "bytes": (pa.table({name: [text.encode() for text in values] for name, values in TEXTS.items()}), PLAIN),
    "dictionaries": (pa.table({name: pa.array(values).dictionary_encode() for name, values in TEXTS.items()}), PLAIN),
    "large strings": (pa.table({name: pa.array(values, pa.large_string()) for name, values in TEXTS.items()}), PLAIN),
    "string views": (pa.table({name: pa.array(values, pa.string_view()) for name, values in TEXTS.items()}), PLAIN),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_type_has_its_meaning(check: Check, name: str) -> None:
    table, expected = TABLES[name]
    checked = check(written(table))
    assert checked.is_ready, checked.detail
    assert normalised(checked.rows) == expected


def test_a_decimal_is_a_number(check: Check) -> None:
    scores = pa.array([[Decimal("1.50"), Decimal("2.00")]], pa.list_(pa.decimal128(5, 2)))
    (row,) = check(written(pa.table({"prompt": ["q"], "responses": [["a", "b"]], "scores": scores}))).rows
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("b", "a")


UNUSED: dict[str, pa.Array] = {
    "nanoseconds": pa.array([1, 2, None], pa.timestamp("ns")),
    "a zone that nobody knows": pa.array([1, 2, 3], pa.timestamp("us", "Mars/Olympus")),
    "the year 10000": pa.array([253_402_300_800_000] * 3, pa.timestamp("ms")),
    "duration": pa.array([1, 2, 3], pa.duration("ns")),
    "time": pa.array([1, 2, 3], pa.time64("ns")),
    "pictures": pa.array([b"\xff" * 5_000_000] * 3),
    "wide texts": pa.array(["x" * 5_000_000] * 3),
    "identifiers": pa.array([b"\xff" * 16] * 3, pa.uuid()),
    "pictures in lists": pa.array([[{"bytes": b"\xff" * 3_000_000, "path": "a.png"}]] * 3),
    "times in lists": pa.array([[{"at": datetime(2026, 1, 1), "took": timedelta(1)}]] * 3),
}


@pytest.mark.parametrize("name", UNUSED)
def test_a_column_that_no_row_uses_is_only_named(check: Check, name: str) -> None:
    checked = check(written(pa.table(TEXTS | {"extra.column": UNUSED[name]}), use_dictionary=False))
    assert checked.is_ready, checked.detail
    assert normalised(checked.rows) == PLAIN
    assert checked.result.report["statistics"]["ignored_fields"] == ["extra.column"]
    assert checked.codes == {}


def read(table: pa.Table, tmp_path: Path, *more_wanted: str) -> list[Record]:
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    return [
        record for batch in read_parquet(path, {*WANTED, *more_wanted}, Limits(max_line_bytes=1 << 20))
        for record in batch.records
    ]  # fmt: skip


def test_what_is_not_decoded_is_there_all_the_same(tmp_path: Path) -> None:
    table = pa.table({
        "when": pa.array([1, 2], pa.timestamp("ns")), "never": pa.array([None, None], pa.timestamp("ns")),
        "images": [[{"bytes": b"\xff", "path": "a.png"}], []], "wide": ["x" * 10_000, "y" * 10_000],
    })  # fmt: skip
    first, second = (record.value for record in read(table, tmp_path))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert isinstance(first["when"], Undecoded)
    assert isinstance(first["wide"], Undecoded)
    assert first["never"] is None
    assert (first["images"], second["images"]) == ([{"path": "a.png"}], [])
    (mapped, _) = (record.value for record in read(table, tmp_path, "wide"))
    assert isinstance(mapped, dict)
    assert mapped["wide"] == "x" * 10_000


def test_a_message_keeps_what_stands_beside_a_time(check: Check) -> None:
    stamped = [
        {name: [message | {"at": datetime(2026, 1, 1)} for message in value] for name, value in row.items()}
        for row in MESSAGES
    ]
    assert normalised(check(written(pa.Table.from_pylist(stamped))).rows) == MESSAGES


REFUSED: dict[str, tuple[pa.Array, str, str]] = {
    "a time": (pa.array([1, 2, 3], pa.timestamp("ns")), "wrong-type", "timestamp[ns]"),
    "variants": (
        pa.StructArray.from_arrays([pa.array([b"\1"] * 3), pa.array([b"\1"] * 3)], ["metadata", "value"]),
        "wrong-type",
        "VARIANT",
    ),
    "bytes that are no text": (pa.array([b"\xff"] * 3), "not-utf-8", "'chosen' holds bytes"),
    "json numbers": (as_json([1, 2, 3]), "wrong-type", "is a number"),
    "broken json": (
        pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{", "{", "{"])), "invalid-json", "JSON column 'chosen'",
    ),
    "a key twice": (
        pa.array([[[("role", "a"), ("role", "b")]]] * 3, pa.list_(pa.map_(pa.string(), pa.string()))),
        "duplicate-key",
        "'role' stands twice",
    ),
    "a text that is not UTF-8": (
        pa.array([b"good", b"\xff\xfe", b"fine"]).view(pa.string()), "not-utf-8", "text in 'chosen'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_used_column_that_cannot_be_read_is_named(check: Check, name: str) -> None:
    column, code, said = REFUSED[name]
    checked = check(written(pa.table(TEXTS | {"chosen": column})), format="explicit")
    assert not checked.is_ready
    assert code in checked.codes
    assert said in checked.detail


def test_only_the_row_that_is_not_utf8_is_lost(check: Check) -> None:
    checked = check(written(pa.table(TEXTS | {"chosen": REFUSED["a text that is not UTF-8"][0]})), on_error="skip")
    assert [row["chosen"] for row in checked.rows] == ["good", "fine"]


def test_a_long_row_names_its_column(check: Check) -> None:
    checked = check(written(pa.table(TEXTS | {"chosen": ["short", "x" * 2_000_000, "short"]})))
    assert checked.codes == {"line-too-long": 1}
    assert "most of them in 'chosen'" in checked.detail


def test_encrypted_columns_are_told_from_damage(check: Check) -> None:
    """A footer that can be read, with the signature that such a file has after it."""
    content = written(pa.table(TEXTS))
    footer_bytes = int.from_bytes(content[-8:-4], "little")
    signed = content[:-8] + bytes(28) + (footer_bytes + 28).to_bytes(4, "little") + b"PAR1"
    assert check(signed).codes == {"encrypted-file": 1}
    assert check(content[:-40]).codes == {"damaged-file": 1}


def large_table(num_rows: int, text_chars: int = 700) -> pa.Table:
    letters = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=200_000))
    starts = random.Random(2)

    def text() -> str:
        begin = starts.randrange(len(letters) - text_chars)
        return letters[begin : begin + text_chars]

    columns = {"prompt": [f"Question {number}?" for number in range(num_rows)]}
    return pa.table(columns | {name: [text() for _ in range(num_rows)] for name in ("chosen", "rejected")})


PEAK = """
import sys
from pathlib import Path
import pyarrow as pa
from core.datasets.options import Limits
from core.datasets.sources.parquet import read_parquet
num_rows = sum(len(batch.records) for batch in read_parquet(Path(sys.argv[1]), ("prompt",), Limits()))
print(num_rows, pa.default_memory_pool().max_memory())
"""


def test_a_row_group_of_any_size_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "one-group.parquet"
    pq.write_table(large_table(30_000), path, row_group_size=1 << 20, compression="none")
    assert pq.ParquetFile(path).num_row_groups == 1
    assert path.stat().st_size > 40_000_000
    answer = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, check=True)
    num_rows, peak_bytes = map(int, answer.stdout.split())
    assert num_rows == 30_000
    assert peak_bytes < 16_000_000


def test_a_page_too_large_for_the_memory_says_so(tmp_path: Path) -> None:
    path = tmp_path / "one-page.parquet"
    table = large_table(40_000, 1_400)
    pq.write_table(table, path, data_page_size=1 << 30, write_batch_size=1 << 20, use_dictionary=False)
    with pytest.raises(CheckOutOfMemory, match="smaller pages and row groups"):
        check_in_child(path, CheckOptions(), tmp_path, timeout_seconds=60, memory_bytes=190_000_000)
    result = check_in_child(path, CheckOptions(), tmp_path, timeout_seconds=60, memory_bytes=400_000_000)
    assert result.num_accepted == 40_000


def test_a_check_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n" * 1_000_000)
    monkeypatch.setattr(check_process, "SECONDS_FOR_ANY_FILE", 0.01)
    monkeypatch.setattr(check_process, "BYTES_PER_SECOND", 1_000_000_000)
    with pytest.raises(CheckTimedOut):
        check_in_child(path, CheckOptions(), tmp_path, timeout_seconds=3600, memory_bytes=512 << 20)
