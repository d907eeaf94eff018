"""Forwarded headers: believed from trusted addresses only, and of them no more than a proxy wrote itself."""

import asyncio
from typing import Any

import pytest

from api.access.proxies import TrustedProxies, parse_networks
from core.settings import SettingsError

NETWORKS = parse_networks("127.0.0.1, 10.0.0.0/8, ::1")


def seen(peer: str, headers: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.update(scope)

    raw = [(name.lower().encode(), value.encode()) for name, value in ({"Host": "inside:8000"} | headers).items()]
    scope = {"type": "http", "client": (peer, 4321), "scheme": "http", "headers": raw, "state": {}}
    asyncio.run(TrustedProxies(app, NETWORKS)(scope, None, None))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9, 10.1.1.1", "203.0.113.9"),
        ("203.0.113.9:55555", "203.0.113.9"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("10.2.2.2, 10.1.1.1", "10.2.2.2"),
        ("203.0.113.9, unknown, 10.1.1.1", "10.1.1.1"),
        ("garbage", "127.0.0.1"),
        ("", "127.0.0.1"),
        (", ".join(["1.2.3.4"] * 5000 + ["203.0.113.9"]), "203.0.113.9"),
    ],
)
def test_the_client_is_the_right_most_address_that_is_not_trusted(forwarded: str, client: str) -> None:
    assert seen("127.0.0.1", {"X-Forwarded-For": forwarded})["client"][0] == client


def test_nothing_is_believed_from_anybody_else() -> None:
    headers = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    scope = seen("203.0.113.9", headers)
    assert (scope["client"], scope["scheme"]) == (("203.0.113.9", 4321), "http")
    assert (b"host", b"inside:8000") in scope["headers"]
    assert scope["state"]["is_proxied"] is False


def test_scheme_and_host_are_those_of_the_nearest_proxy() -> None:
    headers = {"X-Forwarded-Proto": "http, https", "X-Forwarded-Host": "evil.example, tune.example.org"}
    scope = seen("10.9.9.9", headers)
    assert scope["scheme"] == "https"
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"tune.example.org"]
    assert scope["state"] == {"peer": "10.9.9.9", "is_proxied": True}
    odd = seen("10.9.9.9", {"X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "a/b@c"})
    assert (odd["scheme"], (b"host", b"inside:8000") in odd["headers"]) == ("http", True)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "tune.example.org", "10.0.0.0/8;10.1.0.0/16"])
def test_what_is_no_address_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="PREFTUNE_TRUSTED_PROXIES"):
        parse_networks(text)


def test_none_is_trusted_by_default() -> None:
    assert parse_networks("") == ()
