"""The bootstrap key is compared in constant time; stored keys are asked for seldom, and few answers are kept."""

import asyncio
import hmac
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api.access import key_ring
from api.access.key_ring import BOOTSTRAP, LOCAL, KeyRing
from core.domain.errors import Unavailable
from core.services.access import sign_in_codes
from core.services.access.api_keys import Grant
from core.settings import Settings

KEY = "canary-bootstrap"


@pytest.fixture(autouse=True)
def _data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFTUNE_DATA_DIR", str(tmp_path))


def ring(api_key: str | None = KEY) -> KeyRing:
    return KeyRing(SimpleNamespace(settings=Settings(api_key=api_key)))  # type: ignore[arg-type]


def test_every_key_shown_is_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def spy(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(key_ring, "hmac", SimpleNamespace(compare_digest=spy, digest=hmac.digest))
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
    monkeypatch.setattr(key_ring.api_keys, "has_key", lambda _: True)
    assert asyncio.run(known.has_keys())

    def away(_: Any) -> bool:
        raise Unavailable("away")

    monkeypatch.setattr(key_ring.api_keys, "has_key", away)
    assert asyncio.run(known.has_keys())
    with pytest.raises(Unavailable):  # unknown is not none
        asyncio.run(ring(api_key=None).has_keys())


def test_a_code_signs_in_once_and_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: set[str] = set()
    monkeypatch.setattr(key_ring.api_keys, "authenticate", lambda *_: None)
    monkeypatch.setattr(
        key_ring.browser_sessions, "take_code", lambda _, number, __: number not in taken and not taken.add(number)
    )
    known = ring()
    code = sign_in_codes.make(KEY, time.time())
    assert asyncio.run(known.grant(code.encode())) is None, "it is no key"
    assert asyncio.run(known.redeem(code.encode())) == BOOTSTRAP
    assert asyncio.run(known.redeem(code.encode())) is None
    for other in (
        sign_in_codes.make(KEY + "x", time.time()),
        sign_in_codes.make(KEY, time.time() - sign_in_codes.LIFE_SECONDS - 1),
        sign_in_codes.make(KEY, time.time() + 3600),
    ):
        assert asyncio.run(known.redeem(other.encode())) is None


def test_the_local_key_ends_with_the_first_key_that_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "MAX_AGE_SECONDS", 0.0)
    has_key = [False]
    monkeypatch.setattr(key_ring.api_keys, "has_key", lambda _: has_key[0])
    monkeypatch.setattr(key_ring.api_keys, "authenticate", lambda *_: None)
    known = ring(api_key=None)
    path = tmp_path / "local-key"
    assert path.stat().st_mode & 0o777 == 0o600
    shown = path.read_text().strip().encode()
    assert asyncio.run(known.grant(shown)) == LOCAL
    assert asyncio.run(known.grant(shown[:-1])) is None
    has_key[0] = True
    assert asyncio.run(known.grant(shown)) is None
    assert asyncio.run(known.grant_of_holder(LOCAL.key_id)) is None
