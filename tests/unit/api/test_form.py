"""The form reader gives the same whatever the pieces in which the body comes."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.http.problems import HttpError
from api.uploads.form import MAX_PARTS, FormReader
from api.uploads.options import parse_options
from api.uploads.receive import clean_filename
from api.uploads.spool import SpooledFile

CONTENT = b"line 1\r\n--boundar not the boundary\r\n\r\n--\r\nline 2"
TYPE = "multipart/form-data; boundary=boundary"


def part(name: str, content: bytes, extra: str = "", headers: str = "") -> bytes:
    head = f'--boundary\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n{headers}\r\n'
    return head.encode() + content + b"\r\n"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SpooledFile]:
    spooled = SpooledFile(tmp_path / "file", 10_000)
    yield spooled
    spooled.close()


@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(0, 400), max_size=10), file_first=st.booleans())
def test_any_cut_and_any_order(cuts: list[int], file_first: bool) -> None:
    parts = [part("name", "ü".encode()), part("file", CONTENT, '; filename="a.jsonl"', "Content-Encoding: gzip\r\n")]
    body = b"".join(parts[::-1] if file_first else parts) + b"--boundary--\r\n"
    with TemporaryDirectory() as folder:
        file = SpooledFile(Path(folder) / "file", 10_000)
        reader = FormReader(TYPE, file)
        edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
        for start, end in pairwise(edges):
            reader.feed(body[start:end])
        reader.finish()
        file.close()
        assert file.path.read_bytes() == CONTENT
    assert reader.fields == {"name": "ü"}
    assert (reader.filename, reader.file_headers["content-encoding"]) == ("a.jsonl", "gzip")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (part("file", b"x"), 400),  # no last boundary
        (b"--boundary--\r\n", 422),  # no file
        (part("name", b"\xff") + b"--boundary--", 422),
        (part("name", b"x" * 70_000) + b"--boundary--", 422),
        (part("a", b"", '; filename="x"') + b"--boundary--", 422),
        (part("file", b"") + part("file", b"") + b"--boundary--", 422),
        (part("name", b"1") + part("name", b"2") + b"--boundary--", 422),
        (b"--boundary\r\nX: y\r\n\r\nx\r\n--boundary--", 400),  # a part without a name
        (b"--boundary\r\n" + b"X: " + b"y" * 10_000 + b"\r\n\r\nx\r\n--boundary--", 400),
        (b"".join(part(f"f{n}", b"") for n in range(MAX_PARTS + 1)) + b"--boundary--", 400),
        (b"no form", 400),
    ],
    ids=range(11),
)
def test_faulty_forms(file: SpooledFile, body: bytes, status: int) -> None:
    reader = FormReader(TYPE, file)
    with pytest.raises(HttpError) as caught:
        _read(reader, body)
    assert caught.value.fault.kind.status == status


def _read(reader: FormReader, body: bytes) -> None:
    reader.feed(body)
    reader.finish()


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=" + "b" * 300])
def test_boundaries_that_are_none(file: SpooledFile, content_type: str) -> None:
    with pytest.raises(HttpError):
        FormReader(content_type, file)


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\pairs.jsonl", "pairs.jsonl"),
        ("a\x00b\u202e.csv", "ab.csv"),
        ("e\u0301" + "x" * 4096, ("é" + "x" * 4096)[:254]),
        ("ü" * 200, "ü" * 127),
        ("..", ".."),
        ("/", None),
        ("\n", None),
        (None, None),
        ("CON", "CON"),
    ],
)
def test_file_names_are_data_never_paths(given: str | None, cleaned: str | None) -> None:
    assert clean_filename(given) == cleaned


def test_options_come_as_texts() -> None:
    options = parse_options(
        {"columns": '{"prompt": "question"}', "metadata": "", "on_error": "skip", "kind": "unpaired"}
    )
    assert options.columns == {"prompt": "question"}
    assert (options.metadata, options.on_error, options.kind.value) == ({}, "skip", "unpaired")
    for texts, pointer in (
        ({"metadata": "[1]"}, "/metadata"),
        ({"columns": '{"a": NaN}'}, "/columns/a"),
        ({"columns": "{"}, "/columns"),
        ({"x": "1"}, "/x"),
    ):
        with pytest.raises(HttpError) as caught:
            parse_options(texts)
        assert [error.pointer for error in caught.value.fault.errors] == [pointer]
