import asyncio
import io
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import StreamingResponse

from api.downloads import CutShort, Download, TarMember, attachment, begun, exactly, file_response, tar_response
from api.http.problems import HttpError
from core.storage.object_store import ObjectNotFound, StoreUnavailable

CONTENT = bytes(range(100))


def read(start: int, end: int | None) -> Iterator[bytes]:
    for position in range(start, len(CONTENT) if end is None else end, 7):
        yield CONTENT[position : min(position + 7, len(CONTENT) if end is None else end)]


def ask(header: str) -> StreamingResponse:
    request = Request({"type": "http", "method": "GET", "headers": [(b"range", header.encode())]})
    response = file_response(request, Download(num_bytes=100, sha256="0" * 64, filename="a", read=read))
    assert isinstance(response, StreamingResponse)
    return response


@given(first=st.one_of(st.none(), st.integers(0, 120)), last=st.one_of(st.none(), st.integers(0, 120)))
def test_ranges_by_the_book(first: int | None, last: int | None) -> None:
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if first is None and last is None:
        expected: tuple[int, int] | None = None
    elif first is None:
        assert last is not None
        expected = (max(0, 100 - last), 100)
    elif last is not None and last < first:
        expected = None
    else:
        expected = (first, 100 if last is None else min(last + 1, 100))
    if expected is not None and expected[0] >= expected[1]:
        with pytest.raises(HttpError) as caught:
            ask(header)
        assert caught.value.fault.kind.status == 416
        return
    response = ask(header)
    assert response.status_code == (200 if expected is None else 206)
    start, end = expected or (0, 100)
    assert response.headers["content-length"] == str(end - start)
    if expected:
        assert response.headers["content-range"] == f"bytes {start}-{end - 1}/100"


def test_promised_bytes_come_exactly_or_the_answer_is_cut() -> None:
    assert b"".join(exactly(iter([b"ab", b"c"]), 3)) == b"abc"
    assert list(exactly(iter([]), 0)) == []
    for chunks in ([b"ab"], [b"ab", b"cd"], []):
        with pytest.raises(CutShort):
            list(exactly(iter(chunks), 3))


def test_a_store_that_fails_before_the_first_byte_is_a_problem_and_later_a_cut() -> None:
    def missing() -> Iterator[bytes]:
        raise ObjectNotFound("gone")
        yield b""

    def failing() -> Iterator[bytes]:
        yield b"a"
        raise StoreUnavailable("away")

    with pytest.raises(ObjectNotFound):
        begun(missing())
    chunks = begun(failing())
    assert next(chunks) == b"a"
    with pytest.raises(CutShort):
        next(chunks)


def test_a_tar_stream_has_the_length_it_promises() -> None:
    members = [
        TarMember(path="a/" + "é" * 150, num_bytes=100, read=read),
        TarMember(path="empty", num_bytes=0, read=read),
    ]
    response = tar_response("job_1", members, datetime(2026, 1, 2, tzinfo=UTC))
    assert isinstance(response, StreamingResponse)

    async def collect() -> bytes:
        return b"".join([bytes(chunk) async for chunk in response.body_iterator])  # type: ignore[arg-type]

    body = asyncio.run(collect())
    assert len(body) == int(response.headers["content-length"])
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert found == {f"job_1/{members[0].path}": CONTENT, "job_1/empty": b""}


@pytest.mark.parametrize("name", ['a"b', "a\r\nSet-Cookie: x", "ü.jsonl", "a;b"])
def test_file_names_cannot_break_out_of_their_header(name: str) -> None:
    header = attachment(name)
    assert header.isascii()
    assert not {"\r", "\n"} & set(header)
    assert header.count('"') == 2
