"""The cookie of a signed-in browser: only the service that knows the key makes one, and it does not last."""

import pytest
from starlette.datastructures import Headers

from api import sessions
from api.sessions import COOKIE, LIFE_SECONDS, Sessions, is_own_origin

KEY = b"pt_0123456789"


def with_cookie(token: str) -> Headers:
    return Headers({"cookie": f"other=1; {COOKIE}={token}"})


def test_a_session_is_known_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Sessions(KEY)
    monkeypatch.setattr(sessions.time, "time", lambda: 1000.0)
    token = known.issue()
    assert known.has(with_cookie(token))
    assert Sessions(KEY).has(with_cookie(token)), "another process of the service knows it too"
    assert KEY.decode() not in token
    monkeypatch.setattr(sessions.time, "time", lambda: 1000.0 + LIFE_SECONDS - 1)
    assert known.has(with_cookie(token))
    monkeypatch.setattr(sessions.time, "time", lambda: 1000.0 + LIFE_SECONDS)
    assert not known.has(with_cookie(token))


def test_nobody_else_makes_one() -> None:
    known = Sessions(KEY)
    token = known.issue()
    end, rest = token.split(".", 1)
    forged = [
        f"{int(end) + 1}.{rest}",
        token[:-1] + ("0" if token[-1] != "0" else "1"),
        "",
        ".",
        "x",
        "ü.ü",
        f"{token}.",
    ]
    for other in [*forged, Sessions(KEY + b"x").issue()]:
        assert not known.has(with_cookie(other)), other
    assert not known.has(Headers({}))
    assert known.is_key(KEY)
    assert not known.is_key(KEY[:-1])


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
