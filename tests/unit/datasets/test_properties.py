"""Whatever the bytes: a verdict, never an exception; and the same verdict however the bytes arrive."""

import gzip
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets.cells.json_rows import check_shape, num_strings_in
from core.datasets.check import pool
from core.datasets.check.check import check_file
from core.datasets.layouts.registry import LAYOUTS
from core.datasets.options import CheckOptions, Limits
from core.datasets.result import ISSUES_FILE, ROWS_FILE
from core.datasets.rows import row_processing
from core.datasets.sources import decompression, text
from core.domain.dataset_rows import DatasetKind
from core.domain.issue_codes import IssueCode

MANY = settings(max_examples=100, deadline=None, derandomize=True)
FEW = settings(max_examples=30, deadline=None, derandomize=True)
TEXTS = st.one_of(
    st.sampled_from(["", " ", "a", "null", "\u2028", "é\u0301", "\n\nHuman: a\n\nAssistant: b"]), st.text(max_size=12)
)
VALUES = st.recursive(
    st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "text", "rank", "replies"]), inner, max_size=3
        ),
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    sorted({name for layout in LAYOUTS for name in layout.fields if not name.startswith("prediction ")})
)
ROWS = st.one_of(
    st.dictionaries(FIELDS, VALUES, max_size=5),
    st.fixed_dictionaries({"prompt": TEXTS, "chosen": TEXTS, "rejected": TEXTS}),
    st.fixed_dictionaries({"prompt": VALUES, "chosen": VALUES, "rejected": VALUES}),
)
HEADS = st.sampled_from(
    [b"", b"[", b"{", b"PAR1", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"\xef\xbb\xbf",
     b"prompt,chosen\n", b'{"prompt": "', b"\x80\x04", b"PK\x03\x04"]
)  # fmt: skip


def dump(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def run(content: bytes, num_workers: int = 1, **options: Any) -> tuple[Any, ...]:
    """All that a check says and leaves, but for the digest of the file as sent."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "source", Path(folder) / "output"
        source.write_bytes(content)
        output.mkdir()
        result = check_file(source, CheckOptions(**options), output, num_workers=num_workers)
        rows = (output / ROWS_FILE).read_bytes() if (output / ROWS_FILE).exists() else None
        issues = (output / ISSUES_FILE).read_bytes()
        assert {path.name for path in output.iterdir()} <= {ROWS_FILE, ISSUES_FILE}
    assert result.num_rows == result.num_accepted + result.num_rejected + result.num_set_aside
    assert (rows is None) == (result.verdict == "rejected") == (result.refusal is not None)
    assert {*result.report["counts"]} <= {*IssueCode}
    json.dumps(result.to_json(), allow_nan=False)
    if rows is not None:
        assert rows.count(b"\n") == result.num_accepted
        rows.decode()
    statistics = {**result.report["statistics"], "compression": None}
    return result.verdict, result.format, result.num_rows, rows, issues, statistics, result.refusal


@MANY
@given(head=HEADS, content=st.binary(max_size=300), kind=st.sampled_from(DatasetKind))
def test_any_bytes_get_a_verdict(head: bytes, content: bytes, kind: DatasetKind) -> None:
    run(head + content, kind=kind)


@MANY
@given(rows=st.lists(ROWS, min_size=1, max_size=4), kind=st.sampled_from(DatasetKind), skip=st.booleans())
def test_any_rows_get_a_verdict(rows: list[Any], kind: DatasetKind, skip: bool) -> None:
    run(dump(rows), kind=kind, on_error="skip" if skip else "reject")
    run(json.dumps(rows).encode(), kind=kind, on_error="skip")


@MANY
@given(content=st.data())
def test_a_damaged_copy_of_a_good_file_gets_a_verdict(content: st.DataObject) -> None:
    whole = gzip.compress(dump([{"prompt": "a", "chosen": "b", "rejected": "c"}] * 20))
    place = content.draw(st.integers(0, len(whole) - 1))
    byte = content.draw(st.integers(0, 255))
    run(whole[:place] + bytes([byte]) + whole[place + 1 :])
    run(whole[:place])


@FEW
@given(rows=st.lists(ROWS, min_size=1, max_size=12), cut=st.integers(1, 40), is_array=st.booleans())
def test_the_verdict_does_not_depend_on_chunks_or_compression(rows: list[Any], cut: int, is_array: bool) -> None:
    content = json.dumps(rows, indent=1).encode() if is_array else dump(rows)
    whole = run(content, on_error="skip")
    assert run(gzip.compress(content), on_error="skip") == whole
    assert run(zstandard.compress(content), on_error="skip") == whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_CHUNK_BYTES", cut)
        patch.setattr(decompression, "_MAX_INPUT", cut)
        patch.setattr(decompression, "_MAX_OUTPUT", cut)
        assert run(content, on_error="skip") == whole
        assert run(gzip.compress(content), on_error="skip") == whole
        assert run(zstandard.compress(content), on_error="skip") == whole


@pytest.mark.parametrize("is_array", [False, True])
def test_a_large_file_is_judged_alike_in_one_process_and_in_three(is_array: bool) -> None:
    rng = random.Random(3)
    rows: list[Any] = []
    for number in range(4_000):
        text = " ".join(rng.choices(["red", "green", "blue", "grey", "dark", "light"], k=90))
        rows.append({"prompt": f"{number % 700} {text}", "chosen": text[::-1], "rejected": text.upper()})
    rows[1234] = {"prompt": "a", "chosen": 3, "rejected": "b"}
    rows[3321] = rows[17]
    content = json.dumps(rows).encode() if is_array else dump(rows)
    assert len(content) > 4 * 1024**2
    one = run(content, on_error="skip")
    assert run(content, 3, on_error="skip") == one
    assert run(gzip.compress(content), 2, on_error="skip") == one
    assert pool._processor == []  # the helpers keep their state to themselves


QUOTED = st.text(alphabet='"\\\\\\/:,ab{}[]u0 \n\0é', max_size=10)
NESTED = st.recursive(
    st.one_of(QUOTED, st.none(), st.integers()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(QUOTED, inner, max_size=3)),
    max_leaves=8,
)


@MANY
@given(row=st.dictionaries(QUOTED, NESTED, max_size=4), is_ascii=st.booleans(), indent=st.sampled_from([None, 1]))
def test_strings_are_counted_in_the_text_as_in_the_row(row: dict[str, Any], is_ascii: bool, indent: int | None) -> None:
    """What tells a row with two equal keys from one without."""
    text = json.dumps(row, ensure_ascii=is_ascii, indent=indent).encode()
    assert num_strings_in(text) == check_shape(row, Limits())
    assert num_strings_in(text[:-1] + b', "a\\\\\\"\\\\": 1}') == check_shape(row, Limits()) + 1


ODD_LINES = st.sampled_from(
    [
        b'{"prompt": "a", "chosen": "b", "rejected": "c", "chosen": "d"}',
        b'{"prompt": "a", "chosen": "b\\u0000", "rejected": "c"}',
        b'{"prompt": "a", "chosen": "b\\\\", "rejected": "\\"", "id": 1}',
        b'{"prompt": "a", "chosen": "Yes ", "rejected": "yes"}',
        b'{"prompt": "a", "chosen": "b", "rejected": "' + b"c" * 40_000 + b'"}',
        b'{"prompt": "a", "chosen": "b", "rejected": 1}',
        b'{"prompt": "a", "chosen": "b", "rejected": "c"',
        b'{"prompt": " ", "chosen": "b", "rejected": "c"}',
        b" ",
    ]
)
PLAIN_LINES = st.fixed_dictionaries({"prompt": TEXTS, "chosen": TEXTS, "rejected": TEXTS}).map(
    lambda row: json.dumps(row).encode()
)


@MANY
@given(lines=st.lists(st.one_of(PLAIN_LINES, ODD_LINES), min_size=1, max_size=12))
def test_the_short_way_through_plain_pairs_gives_what_the_long_way_gives(lines: list[bytes]) -> None:
    content = b"\n".join([b'{"prompt": "p", "chosen": "x", "rejected": "y"}', *lines])
    short = run(content, on_error="skip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_processing, "are_expected", lambda *_: False)
        assert run(content, on_error="skip") == short
