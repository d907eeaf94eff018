"""The cookie of a signed-in browser: only the service that knows the key makes one, and it does not last."""

import asyncio
from types import SimpleNamespace

import pytest
from starlette.datastructures import Headers

from api.access import sessions
from api.access.key_ring import BOOTSTRAP, KeyRing
from api.access.sessions import COOKIE, LIFE_SECONDS, is_own_origin, issue, session_grant
from core.domain.access import Scope
from core.services.access.api_keys import Grant
from core.settings import Settings

KEY = "pt_0123456789"


def ring(key: str = KEY, session_secret: str = "s" * 32) -> KeyRing:
    settings = Settings(api_key=key, session_secret=session_secret)  # type: ignore[arg-type]
    return KeyRing(SimpleNamespace(settings=settings))  # type: ignore[arg-type]


def has(known: KeyRing, token: str) -> bool:
    return asyncio.run(session_grant(known, Headers({"cookie": f"other=1; {COOKIE}={token}"}), "http")) is not None


@pytest.fixture(autouse=True)
def _no_stored_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.access.key_ring.api_keys.find_live", lambda *_: None)
    monkeypatch.setattr("api.access.key_ring.browser_sessions.is_ended", lambda *_: False)


def test_a_session_is_known_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ring()
    monkeypatch.setattr(sessions.time, "time", lambda: 1000.0)
    token = issue(known, BOOTSTRAP)
    assert has(known, token)
    assert has(ring(), token), "another process of the service knows it too"
    assert KEY not in token
    assert not has(ring(session_secret="t" * 32), token), "whoever knows the database alone makes none"
    monkeypatch.setattr(sessions.time, "time", lambda: 1000.0 + LIFE_SECONDS - 1)
    assert has(known, token)
    monkeypatch.setattr(sessions.time, "time", lambda: 1000.0 + LIFE_SECONDS)
    assert not has(known, token)


def test_nobody_else_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ring()
    token = issue(known, BOOTSTRAP)
    end, rest = token.split(".", 1)
    forged = [
        f"{int(end) + 1}.{rest}",
        token[:-1] + ("0" if token[-1] != "0" else "1"),
        "",
        ".",
        "x",
        "ü.ü",
        f"{token}.",
        token.replace("bootstrap", "key_1"),
    ]
    for other in [*forged, issue(ring(KEY + "x"), BOOTSTRAP)]:
        assert not has(known, other), other
    assert asyncio.run(session_grant(known, Headers({}), "http")) is None
    stored = Grant(key_id="key_1", project_id="p", scope=Scope.READ, secret_sha256="a" * 64)
    monkeypatch.setattr("api.access.key_ring.api_keys.find_live", lambda *_: stored)
    assert has(ring(), issue(known, stored))
    assert not has(ring(), token.replace("bootstrap", "key_1")), "a session of one key is none of another"
    monkeypatch.setattr("api.access.key_ring.api_keys.find_live", lambda *_: None)
    monkeypatch.setattr("api.access.key_ring.browser_sessions.is_ended", lambda *_: False)
    assert not has(ring(), issue(known, stored)), "it ends with its key"


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("https://Preftune.example", "preftune.example", True),
        ("http://127.0.0.1:8001", "127.0.0.1:8000", False),
        ("https://evil.example", "preftune.example", False),
        ("https://preftune.example.evil.example", "preftune.example", False),
        ("null", "preftune.example", False),
        ("http://[", "[", False),
        (None, "preftune.example", False),
        ("http://", "", False),
    ],
)
def test_only_the_own_page_is_the_own_page(origin: str | None, host: str, is_own: bool) -> None:
    headers = {"host": host} | ({"origin": origin} if origin is not None else {})
    assert is_own_origin(Headers(headers)) is is_own
