"""What an account at OpenAI holds of fine-tuning: its jobs and their files. Read only, with bounded repetitions."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import httpx

DEFAULT_URL = "https://api.openai.com/v1"
MAX_TRIES = 7
FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0
PAGE_LIMIT = 100
MAX_JOBS = 20_000
_PASSING = frozenset({408, 409, 429})
_TIMEOUT = httpx.Timeout(60.0, connect=20.0)

Json = dict[str, Any]


class SourceFailed(Exception):
    """OpenAI cannot be asked: it refuses the key, or does not answer after all tries."""


class NotThere(Exception):
    """OpenAI does not give out this one thing; `str()` says why, in its words."""


class _TryAgain(Exception):
    def __init__(self, reason: str, pause_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.pause_seconds = pause_seconds


class Source(AbstractContextManager["Source"]):
    """A connection to OpenAI's API. The key goes into its requests and nowhere else.

    Args:
        headers: organisation and project, where the account has several.
        sleep: waits so many seconds, between two tries.
    """

    def __init__(
        self,
        url: str,
        key: str,
        headers: dict[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._key, self._sleep = key, sleep
        # No redirect is followed: it would carry the key to another address.
        self._http = httpx.Client(
            base_url=url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key}", "User-Agent": "preftune-import", **(headers or {})},
            timeout=_TIMEOUT,
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def jobs(self) -> list[Json]:
        """Return all fine-tuning jobs of the account, the oldest first. Raises SourceFailed."""
        found: dict[str, Json] = {}
        after: str | None = None
        while len(found) < MAX_JOBS:
            params = {"limit": PAGE_LIMIT} | ({"after": after} if after else {})
            page = self._json("fine_tuning/jobs", params)
            fresh = [job for job in page.get("data") or [] if str(job.get("id")) not in found]
            found |= {str(job["id"]): job for job in fresh}
            if not fresh or not page.get("has_more"):  # a page of known jobs: the list does not honour `after`
                break
            after = str(fresh[-1]["id"])
        return sorted(found.values(), key=lambda job: (job.get("created_at") or 0, str(job["id"])))

    def file(self, file_id: str) -> Json:
        """Return what is known of a file. Raises NotThere, SourceFailed."""
        return self._json(f"files/{file_id}")

    def download(self, file_id: str, path: Path, num_bytes: int | None = None) -> None:
        """Write a file's content to `path`, which is there whole or not at all. Raises NotThere, SourceFailed.

        `num_bytes`: the length that it must have; None: any.
        """
        partial = path.with_name(f"{path.name}.part")

        def fetch() -> None:
            with self._http.stream("GET", f"files/{file_id}/content") as response:
                self._judge(response)
                with partial.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
            received = partial.stat().st_size
            if num_bytes is not None and received != num_bytes:
                raise _TryAgain(f"{file_id} has {num_bytes:,} bytes, and {received:,} came")

        self._persist(f"the content of {file_id}", fetch)
        partial.replace(path)

    def _json(self, path: str, params: dict[str, Any] | None = None) -> Json:
        answer: list[Json] = []

        def ask() -> None:
            response = self._http.get(path, params=params)
            self._judge(response)
            try:
                value = response.json()
            except ValueError:
                value = None
            if not isinstance(value, dict):
                raise _TryAgain("the answer is no JSON object")
            answer.append(value)

        self._persist(path, ask)
        return answer[-1]

    def _persist(self, what: str, work: Callable[[], None]) -> None:
        """Repeat what may pass, with growing pauses or those that OpenAI asks for."""
        reasons: list[str] = []
        for pause in _pauses():
            try:
                return work()
            except httpx.TransportError as error:
                reasons.append(f"no answer ({type(error).__name__})")
                asked = None
            except _TryAgain as error:
                reasons.append(str(error))
                asked = error.pause_seconds
            if pause is not None:
                self._sleep(pause if asked is None else min(asked, MAX_PAUSE_SECONDS))
        raise SourceFailed(f"OpenAI does not give {what}, after {MAX_TRIES} tries: {self._scrubbed(reasons[-1])}")

    def _judge(self, response: httpx.Response) -> None:
        status = response.status_code
        if status < 300:
            return
        response.read()
        reason = self._scrubbed(_message(response))
        if status in _PASSING or status >= 500:
            raise _TryAgain(f"{status}: {reason}", _retry_after(response))
        if status in (401, 403) and not response.request.url.path.endswith("/content"):
            raise SourceFailed(f"OpenAI refuses the key of OPENAI_API_KEY: {status}: {reason}")
        raise NotThere(f"{status}: {reason}")

    def _scrubbed(self, text: str) -> str:
        """Take the key out of what others say: some answers repeat it."""
        return text.replace(self._key, "<key>")[:300]


def _pauses() -> Iterator[float | None]:
    """Yield the seconds to wait after each try; None after the last."""
    for number in range(MAX_TRIES - 1):
        yield min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**number)
    yield None


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None


def _message(response: httpx.Response) -> str:
    try:
        error = response.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase or "no reason given"
