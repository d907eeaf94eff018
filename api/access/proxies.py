"""Trusted proxies: from their addresses, and from no other, forwarded headers are believed."""

import ipaddress
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from core.settings import SettingsError

PEER = "peer"
"""Key of `scope["state"]`: the address that the connection comes from, whatever headers say."""
IS_PROXIED = "is_proxied"
"""Key of `scope["state"]`: does the connection come from a trusted proxy?"""
MAX_HOPS = 32
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_SCHEMES = ("http", "https")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse `PREFTUNE_TRUSTED_PROXIES`. Raises SettingsError."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError:
            raise SettingsError(
                f"PREFTUNE_TRUSTED_PROXIES: {part} is no address or network; write them as 10.0.0.2, 10.1.0.0/16"
            ) from None
    return tuple(found)


class TrustedProxies:
    """Outermost middleware: a request that a trusted proxy forwards gets its client's address, scheme and host.

    The client is the right-most address of `X-Forwarded-For` that is no trusted proxy: what stands left of it is the
    client's own word. Of the other headers the right-most value counts, which the nearest proxy wrote.
    """

    def __init__(self, app: ASGIApp, networks: tuple[Network, ...]) -> None:
        self._app = app
        self._networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = self._seen(scope)
        await self._app(scope, receive, send)

    def _seen(self, scope: Scope) -> Scope:
        client = scope.get("client")
        peer = _parse(client[0]) if client else None
        is_proxied = peer is not None and self._is_trusted(peer)
        state = scope.setdefault("state", {})  # the same one: the server looks into it
        state |= {PEER: str(peer) if peer else None, IS_PROXIED: is_proxied}
        scope = dict(scope)
        if not is_proxied or peer is None:
            return scope
        headers = Headers(scope=scope)
        found = self._client(peer, _values(headers, "x-forwarded-for"))
        scope["client"] = (str(found), 0)
        scheme = next(reversed(_values(headers, "x-forwarded-proto")), "").lower()
        if scheme in _SCHEMES:
            scope["scheme"] = scheme
        host = next(reversed(_values(headers, "x-forwarded-host")), "")
        if _HOST.fullmatch(host):
            scope["headers"] = list(scope["headers"])
            MutableHeaders(scope=scope)["host"] = host
        return scope

    def _client(self, peer: Address, hops: list[str]) -> Address:
        found = peer
        for hop in reversed(hops[-MAX_HOPS:]):
            address = _parse(hop)
            if address is None:
                return found
            found = address
            if not self._is_trusted(address):
                return found
        return found

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def is_trusted(address: str, networks: tuple[Network, ...]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in networks)


def _values(headers: Headers, name: str) -> list[str]:
    """Return the values of all headers of that name, in their order."""
    return [part.strip() for value in headers.getlist(name) for part in value.split(",") if part.strip()]


def _parse(text: str) -> Address | None:
    """Parse an address, with or without a port."""
    for candidate in (text, _without_port(text)):
        try:
            address = ipaddress.ip_address(candidate.strip("[]"))
        except ValueError:
            continue
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return mapped or address
    return None


def _without_port(text: str) -> str:
    try:
        return urlsplit(f"//{text}").hostname or ""
    except ValueError:
        return ""
