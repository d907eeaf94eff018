"""HTTP requests, retried within bounds when that is safe."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from preftune.errors import ApiError, ConnectionFailed, InvalidAddress

Object = dict[str, Any]

MAX_ATTEMPTS = 4
RETRY_STATUSES = frozenset({502, 503, 504})
RATE_LIMITED = frozenset(
    {
        "rate-limited",
        "too-many-requests",
        "too-many-downloads",
        "too-many-waiting",
        "too-many-answers",
        "runner-busy",
    }
)
MAX_RETRY_AFTER_SECONDS = 60.0
SILENCE_SECONDS = 45.0
"""The service gives a sign of life every few seconds; after so long without one a stream is dead."""
CONFLICT_IN_FLIGHT = "idempotency-key-in-use"


class Transport:
    """JSON requests to the service. GETs, PUTs, and POSTs with an idempotency key are retried, nothing else."""

    def __init__(self, base_url: str, api_key: str | None, timeout_seconds: float) -> None:
        headers = {"User-Agent": "preftune-python", "Accept": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self.base_url = base_url
        self.http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout_seconds)

    def below_base(self, url: str) -> str:
        """Return an address out of an answer, relative to `base_url`: it repeats the path that `base_url` ends in."""
        root = urlsplit(self.base_url).path.rstrip("/")
        return url.removeprefix(root) if url.startswith(f"{root}/") else url

    def close(self) -> None:
        self.http.close()

    def get(self, path: str, **params: Any) -> Object:
        return self._json(self._retrying(lambda: self.http.get(path, params=_given(params))))

    def get_list(self, path: str, **params: Any) -> list[Object]:
        """The objects of a list that has no pages."""
        return [*self.get(path, **params)["data"]]

    def get_text(self, path: str, **params: Any) -> httpx.Response:
        """The response, for its text and headers."""
        headers = {"Accept": "text/plain"}
        return self._retrying(lambda: self.http.get(path, params=_given(params), headers=headers))

    def post(
        self, path: str, body: dict[str, Any] | None = None, *, idempotency_key: str | None = None, **params: Any
    ) -> Object:
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}

        def send() -> httpx.Response:
            return self.http.post(path, json=body, params=_given(params), headers=headers)

        return self._json(self._retrying(send))

    def post_and_wait(self, path: str, body: Object | None = None) -> Object:
        """Post and wait for an answer that may take minutes."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._json(self._retrying(lambda: self.http.post(path, json=body, headers=headers, timeout=None)))

    def put(self, path: str, content: bytes, **params: Any) -> Object:
        """Put with retries like a GET: the same bytes take effect once."""
        return self._json(self._retrying(lambda: self.http.put(path, content=content, params=_given(params))))

    def patch(self, path: str, body: Object) -> Object:
        return self._json(self._retrying(lambda: self.http.patch(path, json=body), attempts=1))

    def delete(self, path: str) -> None:
        self._retrying(lambda: self.http.delete(path))

    def upload(self, path: str, content: Any, params: dict[str, Any], headers: dict[str, str]) -> Object:
        """Send streamed content in a single attempt."""
        response = self._retrying(
            lambda: self.http.post(path, content=content, params=_given(params), headers=headers, timeout=None),
            attempts=1,
        )
        return self._json(response)

    def download(self, path: str, **params: Any) -> Iterator[bytes]:
        """Yield the bytes of an answer. Raises ConnectionFailed where they break off."""
        try:
            with self.http.stream("GET", path, params=_given(params), timeout=60) as response:
                if response.status_code >= 400:
                    response.read()
                if (problem := problem_of(response)) is not None:
                    raise problem
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise ConnectionFailed(f"the connection broke off ({type(error).__name__}); call again") from error

    def stream_events(self, path: str, body: dict[str, Any]) -> Iterator[Any]:
        """Post, and yield the JSON of each server-sent event until `[DONE]`; sent once.

        Raises ApiError, also for an error that is the last event, and ConnectionFailed where the stream breaks off.
        """
        timeout = httpx.Timeout(self.http.timeout.connect, read=SILENCE_SECONDS)
        try:
            with self.http.stream("POST", path, json=body, timeout=timeout) as response:
                if response.status_code >= 400:
                    response.read()
                if (problem := problem_of(response)) is not None:
                    raise problem
                for line in response.iter_lines():
                    if line == "data: [DONE]":
                        return
                    if line.startswith("data: "):
                        yield _event(line.removeprefix("data: "))
        except httpx.TransportError as error:
            raise ConnectionFailed(f"the connection broke off ({type(error).__name__}); ask again") from error
        raise ConnectionFailed("the answer ended in the middle; ask again")

    def _retrying(self, send: Callable[[], httpx.Response], attempts: int = MAX_ATTEMPTS) -> httpx.Response:
        failure: Exception | None = None
        pause = 0.0
        for attempt in range(attempts):
            time.sleep(pause)
            pause = min(4.0, 0.5 * 2**attempt)
            try:
                response = send()
            except httpx.TransportError as error:
                failure = ConnectionFailed(f"no answer from {self.base_url} ({type(error).__name__}); is it running?")
                continue
            failure = problem_of(response)
            if failure is None:
                return response
            if failure.code in RATE_LIMITED:
                pause = _retry_after(response) or pause
            elif response.status_code not in RETRY_STATUSES and failure.code != CONFLICT_IN_FLIGHT:
                break
        assert failure is not None
        raise failure

    @staticmethod
    def _json(response: httpx.Response) -> Object:
        answer: Object = response.json() if response.content else {}
        return answer


class Resource:
    """Requests below one address of the service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport


def wait_for_end(look: Callable[[], Object], timeout_seconds: float | None, poll_seconds: float) -> Object:
    """Return what `look` gives once it has ended. Raises TimeoutError."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while (found := look())["finished_at"] is None:
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"{found['id']} is still {found['status']}")
        time.sleep(poll_seconds)
    return found


def check_address(url: str) -> str:
    """Return the address of a service; raises InvalidAddress for what is none."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        is_address = False
    if is_address:
        return url
    hint = "" if "://" in url or not url.strip() else f"; did you mean http://{url.strip()} ?"
    raise InvalidAddress(f"{url!r} is not the address of a service, which begins with http:// or https://{hint}")


def _event(text: str) -> Any:
    """Return what an event says. Raises ApiError for one that tells an error."""
    found = json.loads(text)
    if isinstance(found, dict) and isinstance(error := found.get("error"), dict):
        status = 500 if error.get("type") == "server_error" else 400
        raise ApiError(status, _native_problem(error))
    return found


def problem_of(response: httpx.Response) -> ApiError | None:
    """Return the error of a response, or None for a success."""
    if response.status_code < 400:
        return None
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and isinstance(error := problem.get("error"), dict):
        return ApiError(response.status_code, _native_problem(error))
    if isinstance(problem, dict):
        return ApiError(response.status_code, problem)
    server = response.headers.get("server", "no name given")
    detail = (
        f"Something between here and the service answered {response.status_code} (server: {server[:80]}): a proxy with "
        "a limit of its own, or another service at this address."
    )
    return ApiError(response.status_code, {"code": "not-from-the-service", "detail": detail})


def _native_problem(error: dict[str, Any]) -> dict[str, Any]:
    """Return what an error in OpenAI's form says, under the names of a problem document."""
    faults = [fault for fault in error.get("errors") or [] if isinstance(fault, dict)]
    pointers = [{"pointer": f"/{fault.get('param') or ''}", "detail": str(fault.get("message"))} for fault in faults]
    code = str(error.get("code")).replace("_", "-")
    detail = "the request is not valid" if pointers else str(error.get("message"))
    return {"code": code, "detail": detail, "errors": pointers, "request_id": error.get("request_id")}


def _retry_after(response: httpx.Response) -> float | None:
    """Return the pause that the service asks for, within bounds."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_RETRY_AFTER_SECONDS) if text.isdecimal() else None


def _given(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}
