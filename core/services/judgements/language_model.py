"""A language model as judge, behind an OpenAI-compatible address of the operator's: one question at a time, bounded.

Every fault is told by its kind and none becomes a verdict. Addresses are judged as those of webhooks are.
"""

import asyncio
import hashlib
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import httpx

from core.domain.errors import DomainError, FieldError, InvalidRequest
from core.domain.judging import pairwise
from core.domain.judging.judgements import Judge, JudgeFault
from core.domain.judging.pairwise import Said
from core.services.judgements.judging import OpenPair
from core.services.webhooks import addresses
from core.services.webhooks.addresses import AllowedHosts, Target
from core.settings import Settings

MAX_TRIES = 3
"""Requests of one question."""
MAX_ANSWER_BYTES = 1024 * 1024
MAX_ANSWER_TOKENS = 512
_FIRST_PAUSE_SECONDS = 0.5
_CONNECT_SECONDS = 10.0
_CACHED_AS = pairwise.FIRST
"""Part of the digest since the first version; the question itself is another part, so later versions differ by that."""
_AGAIN = frozenset((408, 409, 429, 500, 502, 503, 504))


Question = list[dict[str, str]]
"""Messages of one question."""


class JudgeNotConfigured(InvalidRequest):
    code = "judge-not-configured"
    title = "No language model judges here"


class Stopped(Exception):
    """Raised where the judgement is to stop."""


@dataclass(kw_only=True)
class Budget:
    """Requests that are left, shared by threads."""

    left: int
    num_taken: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        """Take one request, if one is left."""
        with self._lock:
            if self.num_taken >= self.left:
                return False
            self.num_taken += 1
            return True


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What came of one question."""

    said: Said | None
    faults: Counter[JudgeFault]
    """Faults on the way, also where a later try went well."""


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """The operator's model with the question of one judgement."""

    url: str
    model: str
    api_key: str | None
    timeout_seconds: float
    allowed: AllowedHosts
    criteria: str | None
    template: str
    is_stopping: Callable[[], bool] = lambda: False

    @classmethod
    def of(cls, settings: Settings, judge: Judge, is_stopping: Callable[[], bool] = lambda: False) -> "LanguageModel":
        """Take the operator's settings. Raises JudgeNotConfigured."""
        if settings.judge_url is None or settings.judge_model is None:
            raise JudgeNotConfigured(
                "/judge/kind: no language model is configured; the operator sets PREFTUNE_JUDGE_URL and _MODEL.",
                errors=[FieldError("/judge/kind", "no language model is configured")],
            )
        return cls(
            url=f"{settings.judge_url.rstrip('/')}/chat/completions",
            model=settings.judge_model,
            api_key=settings.current("judge_api_key"),
            timeout_seconds=settings.judge_timeout_seconds,
            allowed=AllowedHosts.parse(settings.judge_allowed_hosts, "PREFTUNE_JUDGE_ALLOWED_HOSTS"),
            criteria=judge.criteria,
            template=judge.template or pairwise.FIRST,
            is_stopping=is_stopping,
        )

    def question(self, pair: OpenPair, *, is_swapped: bool) -> Question:
        """Return what is asked about a pair, in one order."""
        a, b = (pair.second, pair.first) if is_swapped else (pair.first, pair.second)
        return pairwise.question(pair.prompt, a, b, self.criteria, context=pair.context, template=self.template)

    def key_of(self, question: Question) -> str:
        """Return the digest of all that determines an answer, by which it is cached."""
        asked = [_CACHED_AS, self.url, self.model, question]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def ask(self, messages: Question, budget: Budget) -> Asked:
        """Ask which answer is better, again where that may help. Raises Stopped."""
        faults: Counter[JudgeFault] = Counter()
        for number in range(MAX_TRIES):
            if number:
                self._pause(_FIRST_PAUSE_SECONDS * 2 ** (number - 1))
            if self.is_stopping():
                raise Stopped
            if not budget.take():
                faults[JudgeFault.BUDGET] += 1
                break
            found, is_lasting = self._try(messages)
            if isinstance(found, Said):
                return Asked(said=found, faults=faults)
            faults[found] += 1
            if is_lasting:
                break
        return Asked(said=None, faults=faults)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.is_stopping():
            time.sleep(min(left, 0.1))

    def _try(self, messages: list[dict[str, str]]) -> tuple[Said | JudgeFault, bool]:
        """Return the verdict or the fault of one request, and whether another try would meet the same."""
        body = {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": MAX_ANSWER_TOKENS}
        try:
            target = addresses.resolve(self.url, self.allowed)
        except DomainError:
            return JudgeFault.UNREACHABLE, True
        except (OSError, socket.gaierror):
            return JudgeFault.UNREACHABLE, False
        try:
            status, content = asyncio.run(self._post(target, json.dumps(body).encode()))
        except (TimeoutError, httpx.TimeoutException):
            return JudgeFault.TIMED_OUT, False
        except (httpx.HTTPError, OSError, ssl.SSLError):
            return JudgeFault.UNREACHABLE, False
        if status != 200:
            return JudgeFault.HTTP_ERROR, status not in _AGAIN
        said = _said(content)
        return (JudgeFault.NONSENSE, False) if said is None else (said, False)

    async def _post(self, target: Target, body: bytes) -> tuple[int, bytes]:
        """Send and return status and content, cut at the most bytes. Raises TimeoutError, httpx.HTTPError, OSError."""
        host = f"[{target.address}]" if ":" in target.address else target.address
        headers = {"Host": addresses.host_header(target), "Content-Type": "application/json", "User-Agent": "preftune"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        url = f"{target.scheme}://{host}:{target.port}{target.path}"
        limits = httpx.Timeout(self.timeout_seconds, connect=_CONNECT_SECONDS)
        async with (
            asyncio.timeout(self.timeout_seconds),
            httpx.AsyncClient(
                timeout=limits, follow_redirects=False, trust_env=False, verify=_certificates(target.scheme)
            ) as client,
            client.stream(
                "POST", url, content=body, headers=headers, extensions={"sni_hostname": target.host}
            ) as response,
        ):
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    break
            return response.status_code, bytes(content[:MAX_ANSWER_BYTES])


@lru_cache
def _certificates(scheme: str) -> ssl.SSLContext | bool:
    """Return what a server's certificate is checked with, which takes long to make."""
    return httpx.create_ssl_context() if scheme == "https" else False


def _said(content: bytes) -> Said | None:
    try:
        text = json.loads(content)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return pairwise.parse(text) if isinstance(text, str) else None
