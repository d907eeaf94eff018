"""Check of the way from clients to the service: what a proxy in between keeps back, limits or replaces."""

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, parse_headers
from io import BytesIO
from typing import Any
from urllib.parse import SplitResult, urlsplit

from core.outages import reason_of
from core.services.operations.diagnosis import CheckFinding

ECHO_PATH = "/health/echo"
ECHO_SECONDS = 1.0
"""Time between the two events of the echo."""
FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
_ANSWER_SECONDS = 10.0
_TRICKLE_SECONDS, _TRICKLES, _TRICKLE_BYTES = 0.5, 10, 1024
_MAX_HEAD_BYTES = 64 * 1024
_MAX_LINE_BYTES = 4096
_MAX_LINES = 10


@dataclass(frozen=True, kw_only=True)
class Echo:
    """What arrived at the service."""

    scheme: str
    host: str
    root_path: str
    forwarded: str
    """`believed`, `ignored` (headers of a proxy that is not trusted) or `none`."""
    gap_seconds: float
    """Time between the arrival of the two events here."""


class _Stranger(Exception):
    """Raised for an answer that is not this service's, or not a success."""


def check_way_in(url: str, max_upload_bytes: int) -> Iterator[CheckFinding]:
    """Yield findings about the address that clients use, such as `https://tune.example.org`. Raises nothing."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield CheckFinding(
            name="address", state="failed", detail=f"{url} is no address such as https://tune.example.org"
        )
        return
    try:
        echo = _echo(parts)
    except (OSError, HTTPException, ValueError, _Stranger) as error:
        yield CheckFinding(name="address", state="failed", detail=f"{url}: {_reason(error)}")
        return
    yield _address(parts, echo)
    yield _streams(echo)
    yield _uploads(parts, max_upload_bytes)


def _echo(parts: SplitResult) -> Echo:
    with closing(_connect(parts, _ANSWER_SECONDS)) as connection:
        connection.request("GET", _path(parts) + ECHO_PATH, headers={"Accept-Encoding": "identity"})
        response = connection.getresponse()
        if response.status != 200 or response.getheader("content-type", "").partition(";")[0] != "text/event-stream":
            raise _Stranger(_told(response))
        found = json.loads(_event(response))
        if not isinstance(found, dict) or found.keys() != {"scheme", "host", "root_path", "forwarded"}:
            raise _Stranger("an event stream without its facts; is it of this version?")
        first = time.monotonic()
        _event(response)
        return Echo(gap_seconds=time.monotonic() - first, **found)


def _event(response: HTTPResponse) -> bytes:
    """Return the data of the next event."""
    for _ in range(_MAX_LINES):
        line = response.readline(_MAX_LINE_BYTES)
        if line.startswith(b"data: "):
            return line.removeprefix(b"data: ")
    raise _Stranger("an event stream without events")


def _address(parts: SplitResult, echo: Echo) -> CheckFinding:
    faults = []
    if echo.root_path != _path(parts):
        wanted = _path(parts) or "nothing"
        faults.append(f"clients come by the path {wanted!r}, PREFTUNE_ROOT_PATH is {echo.root_path!r}")
    if echo.host.lower() != parts.netloc.lower():
        faults.append(
            f"the service is told the host {echo.host}, so the dashboard's sign-in is refused; pass on Host, or send "
            "X-Forwarded-Host from a proxy in PREFTUNE_TRUSTED_PROXIES"
        )
    if echo.forwarded == "ignored":
        faults.append(
            "the proxy's X-Forwarded-… headers are not believed; name its address in PREFTUNE_TRUSTED_PROXIES"
        )
    elif echo.scheme != parts.scheme:
        faults.append(f"the service takes the scheme for {echo.scheme}; let the proxy send X-Forwarded-Proto")
    if faults:
        return CheckFinding(name="address", state="warning", detail="; ".join(faults))
    return CheckFinding(name="address", state="ok", detail=f"{parts.geturl()} leads to this service")


def _streams(echo: Echo) -> CheckFinding:
    if echo.gap_seconds < ECHO_SECONDS / 2:
        detail = "a proxy keeps event streams back until they end; switch off its buffering of answers"
        return CheckFinding(name="streams", state="failed", detail=detail)
    return CheckFinding(name="streams", state="ok", detail="events arrive as they are sent")


def _uploads(parts: SplitResult, max_upload_bytes: int) -> CheckFinding:
    """Announce a body of the largest size and send its beginning: the service refuses this one at once."""
    size = f"{max_upload_bytes:,} bytes (PREFTUNE_MAX_UPLOAD_BYTES)"
    try:
        status, headers = _begin_upload(parts, max_upload_bytes)
    except TimeoutError:
        detail = "a proxy keeps uploads back until they are whole; switch off its buffering of requests"
        return CheckFinding(name="uploads", state="warning", detail=detail)
    except (OSError, HTTPException, ValueError) as error:
        return CheckFinding(name="uploads", state="failed", detail=f"a body of {size}: {_reason(error)}")
    if not _is_problem(headers):
        server = headers.get("server", "no name given")[:80]
        detail = f"a proxy (server: {server}) answers {status} to a body of {size}; lift its limit"
        return CheckFinding(name="uploads", state="failed", detail=detail)
    return CheckFinding(name="uploads", state="ok", detail=f"up to {size} pass, as they are sent")


def _begin_upload(parts: SplitResult, num_bytes: int) -> tuple[int, Message]:
    """Return status and headers of the answer to the beginning of a large body. Raises TimeoutError, OSError.

    A little goes on flowing meanwhile: proxies in Go pass an early answer on only when the next bytes arrive.
    """
    with closing(_connect(parts, _TRICKLE_SECONDS)) as connection:
        connection.connect()
        head = f"POST {_path(parts)}{ECHO_PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {num_bytes}\r\n"
        connection.sock.sendall(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode())
        answer = b""
        for _ in range(_TRICKLES):
            connection.sock.sendall(b"\n" * _TRICKLE_BYTES)
            with suppress(TimeoutError):
                while b"\r\n\r\n" not in answer and len(answer) <= _MAX_HEAD_BYTES:
                    received = connection.sock.recv(_MAX_HEAD_BYTES)
                    if not received:
                        raise ConnectionResetError("the connection was closed without an answer")
                    answer += received
                first, _, rest = answer.partition(b"\r\n")
                return int(first.split()[1]), parse_headers(BytesIO(rest))
    raise TimeoutError


def _connect(parts: SplitResult, seconds: float) -> HTTPConnection:
    assert parts.hostname is not None
    if parts.scheme == "https":
        return HTTPSConnection(parts.hostname, parts.port, timeout=seconds, context=ssl.create_default_context())
    return HTTPConnection(parts.hostname, parts.port, timeout=seconds)


def _path(parts: SplitResult) -> str:
    return parts.path.rstrip("/")


def _told(response: HTTPResponse) -> str:
    problem = _problem(response)
    if problem is not None:
        return f"the service answers {response.status} {problem.get('code')}: {problem.get('detail')}"
    return f"something else answers {response.status} (server: {response.getheader('server', 'no name given')[:80]})"


def _problem(response: HTTPResponse) -> dict[str, Any] | None:
    """Return the problem document of our own answer; None for an answer of somebody else."""
    if not _is_problem(response.headers):
        return None
    found = json.loads(response.read(64 * 1024))
    return found if isinstance(found, dict) else None


def _is_problem(headers: Message) -> bool:
    return headers.get_content_type() == "application/problem+json"


def _reason(error: Exception) -> str:
    if isinstance(error, _Stranger):
        return str(error)
    if isinstance(error, socket.gaierror):
        return f"the name is not known here ({error.strerror})"
    return reason_of(error)
