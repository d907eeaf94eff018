"""Where webhooks may go: judged after the name is resolved; only harmless addresses are tried here."""

import socket

import pytest

from core.domain.webhook_events import delay_seconds, signature
from core.services.webhooks.addresses import AddressRefused, AllowedHosts, check_url, resolve
from core.settings import SettingsError

NOBODY = AllowedHosts.parse("")


def named(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def find(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", find)


def test_a_public_address_is_taken_and_the_connection_goes_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, "93.184.215.14")
    target = resolve("https://Hooks.Example.com:8443/a?b=c", NOBODY)
    assert (target.host, target.address, target.port, target.path) == (
        "hooks.example.com",
        "93.184.215.14",
        8443,
        "/a?b=c",
    )


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.9", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "::1", "fe80::1", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::"],
)  # fmt: skip
def test_addresses_inside_a_network_are_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for found in ((address,), ("93.184.215.14", address)):
        named(monkeypatch, *found)
        with pytest.raises(AddressRefused, match="PREFTUNE_WEBHOOK_ALLOWED_HOSTS"):
            resolve("https://hooks.example.com/", NOBODY)


def test_what_the_operator_lists_is_taken_also_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, "10.0.4.7")
    for listed in ("receiver.internal", "10.0.4.0/24", "other, 10.0.4.7"):
        assert resolve("http://receiver.internal/", AllowedHosts.parse(listed)).port == 80
    with pytest.raises(AddressRefused):
        resolve("http://receiver.internal/", AllowedHosts.parse("10.0.5.0/24"))
    named(monkeypatch, "93.184.215.14")
    with pytest.raises(AddressRefused, match="must be https"):
        resolve("http://hooks.example.com/", AllowedHosts.parse("10.0.4.0/24"))


@pytest.mark.parametrize(
    "url",
    ["ftp://example.com/", "https:///x", "https://user:pw@example.com/", "https://example.com/#x", "https://a:99999/",
     "https://exa mple.com/", "https://a..b/", "https://" + "a" * 64 + ".com/", "https://[::1/",
     "https://例え.jp/", "https://example.com/" + "x" * 2048, "example.com"],
)  # fmt: skip
def test_urls_of_another_form_are_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        check_url(url)


def test_a_wrong_network_stops_the_start() -> None:
    with pytest.raises(SettingsError, match=r"10\.0\.0\.1/8"):
        AllowedHosts.parse("10.0.0.1/8")


def test_the_signature_is_that_of_the_published_example() -> None:
    """The example of standardwebhooks.com's reference libraries."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    signed = signature([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature([secret, secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == f"{signed} {signed}"


def test_tries_are_spread_over_more_than_a_day() -> None:
    waits = [delay_seconds(number) for number in range(1, 40)]
    assert waits == sorted(waits)
    assert waits[0] == 5
    assert sum(waits) > 24 * 3600
