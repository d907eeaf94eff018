"""The limits of bodies, driven as a server drives them."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from starlette.types import Message, Receive, Scope, Send

from api.http.body_limits import BodyLimits, BodyPolicy
from api.middleware import RequestContext
from api.telemetry import HttpTelemetry

POLICY = BodyPolicy(max_bytes=100, idle_seconds=0.05, grace_seconds=0.1, min_bytes_per_second=1000)


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await answer(send)


async def read_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send)


async def answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def ask(
    app: Any, parts: Sequence[bytes], headers: list[tuple[bytes, bytes]] | None = None, pause: float = 0.0
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send the parts, then silence; returns status, headers and body of the answer."""
    sent: list[Message] = []
    left = list(parts)

    async def receive() -> Message:
        await asyncio.sleep(pause)
        if not left:
            await asyncio.sleep(3600)
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": part != b"end"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "headers": [(b"transfer-encoding", b"chunked")] if headers is None else headers,
    }
    asyncio.run(asyncio.wait_for(BodyLimits(app, lambda _: POLICY)(scope, receive, send), 10))
    start, *bodies = sent
    body = b"".join(message.get("body", b"") for message in bodies)
    assert [message.get("more_body", False) for message in bodies][-1] is False
    return start["status"], dict(start["headers"]), body


def test_up_to_the_limit_all_is_well() -> None:
    assert ask(read_all, [b"x" * 97, b"end"])[0] == 200


def test_counted_while_it_streams() -> None:
    status, _, body = ask(read_all, [b"x" * 60, b"x" * 41, b"end"])
    assert (status, orjson.loads(body)["code"]) == (413, "body-too-large")


def test_refused_by_its_declared_length_before_it_is_read() -> None:
    status, headers, body = ask(read_all, [b"end"], [(b"content-length", b"101")])
    assert (status, orjson.loads(body)["code"], headers[b"connection"]) == (413, "body-too-large", b"close")


@pytest.mark.parametrize(("parts", "pause"), [([b"x"], 0.0), ([b"x"] * 30 + [b"end"], 0.01)], ids=["silent", "slow"])
def test_too_slow(parts: list[bytes], pause: float) -> None:
    status, _, body = ask(read_all, parts, pause=pause)
    assert (status, orjson.loads(body)["code"]) == (408, "body-too-slow")


def test_an_early_answer_closes_the_connection_and_reads_on_for_a_moment() -> None:
    status, headers, body = ask(read_nothing, [b"x" * 1000, b"end"])
    assert (status, headers[b"connection"], body) == (200, b"close", b"ok")


def test_without_a_body_nothing_is_changed() -> None:
    for headers in ([], [(b"content-length", b"0")]):
        assert ask(read_nothing, [], headers) == (200, {}, b"ok")


def test_no_exception_text_reaches_a_client() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret /etc/path")

    status, _, body = ask(RequestContext(broken, HttpTelemetry()), [], [])
    problem = orjson.loads(body)
    assert (status, problem["code"]) == (500, "internal-error")
    assert problem["request_id"].startswith("req_")
    assert b"secret" not in body
