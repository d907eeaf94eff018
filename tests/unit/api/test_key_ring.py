"""The bootstrap key is compared in constant time; stored keys are asked for seldom, and few answers are kept."""

import asyncio
import hmac
from types import SimpleNamespace
from typing import Any

import pytest

from api.access import key_ring
from api.access.key_ring import BOOTSTRAP, KeyRing
from core.domain.errors import Unavailable
from core.services.access.api_keys import Grant
from core.settings import Settings

KEY = "canary-bootstrap"


def ring(api_key: str | None = KEY) -> KeyRing:
    return KeyRing(SimpleNamespace(settings=Settings(api_key=api_key)))  # type: ignore[arg-type]


def test_every_key_shown_is_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def spy(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(key_ring, "hmac", SimpleNamespace(compare_digest=spy))
    monkeypatch.setattr(key_ring.api_keys, "authenticate", lambda *_: None)
    for shown in (KEY, KEY[:-1], "x", ""):
        assert asyncio.run(ring().grant(shown.encode())) == (BOOTSTRAP if shown == KEY else None)
    assert compared == [(shown.encode(), KEY.encode()) for shown in (KEY, KEY[:-1], "x", "")]


def test_a_stored_key_is_asked_for_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def authenticate(_backend: Any, token: str) -> Grant | None:
        asked.append(token)
        return Grant(key_id=token, project_id="p", scope=BOOTSTRAP.scope) if token == "good" else None

    monkeypatch.setattr(key_ring.api_keys, "authenticate", authenticate)
    known = ring()

    async def show() -> None:
        for _ in range(5):
            assert (await known.grant(b"good")) is not None
            assert (await known.grant(b"bad")) is None

    asyncio.run(show())
    assert asked == ["good", "bad"]
    monkeypatch.setattr(key_ring, "MAX_AGE_SECONDS", 0.0)
    asyncio.run(show())
    assert len(asked) == 12
    monkeypatch.setattr(key_ring, "MAX_KEPT", 3)
    for number in range(10):
        asyncio.run(known.grant(str(number).encode()))
    assert len(known._grants) == 3


def test_while_the_database_is_away_what_was_known_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "MAX_AGE_SECONDS", 0.0)
    known = ring(api_key=None)
    monkeypatch.setattr(key_ring.api_keys, "has_live_key", lambda _: True)
    assert asyncio.run(known.has_keys())

    def away(_: Any) -> bool:
        raise Unavailable("away")

    monkeypatch.setattr(key_ring.api_keys, "has_live_key", away)
    assert asyncio.run(known.has_keys())
    assert not asyncio.run(ring(api_key=None).has_keys())
