"""The address of a vLLM server: judged at every connection, so that no name leads where it must not."""

import ipaddress
import socket
from functools import partial
from urllib.parse import urlsplit

import httpx
from anyio import to_thread

from core.services.chat.runner import RunnerUnavailable
from core.settings import SettingsError

_SHARED = ipaddress.ip_network("100.64.0.0/10")
"""Addresses of overlay networks, which are private in practice."""
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254")))
"""Where clouds give out credentials, beside the link-local address."""
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_url(url: str) -> str:
    """Return the URL of a server without what must not be in it. Raises SettingsError."""
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or parts.scheme not in ("http", "https"):
        raise SettingsError("PREFTUNE_RUNNER_URL: must be an http or https URL with a host, such as http://gpu-1:8000")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise SettingsError(
            "PREFTUNE_RUNNER_URL: must hold no user, password, query or fragment; vLLM's --api-key is "
            "PREFTUNE_RUNNER_SECRET"
        )
    if parts.path.rstrip("/").endswith("/v1"):
        raise SettingsError("PREFTUNE_RUNNER_URL: must be the address of the server, without /v1")
    return url.rstrip("/")


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects to the address that was judged. Plain http stays inside one's own network."""

    def __init__(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
        self._inner = httpx.AsyncHTTPTransport(limits=limits, retries=0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises RunnerUnavailable for an address that is refused or that a name does not have."""
        host, is_plain = request.url.host, request.url.scheme == "http"
        address = await to_thread.run_sync(partial(judged_address, host, is_plain=is_plain))
        extensions = request.extensions | ({} if is_plain else {"sni_hostname": host})
        url = request.url.copy_with(host=str(address))
        sent = httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)
        return await self._inner.handle_async_request(sent)

    async def aclose(self) -> None:
        await self._inner.aclose()


def judged_address(host: str, *, is_plain: bool) -> IpAddress:
    """Return the address that a host has; all of them must be allowed. Raises RunnerUnavailable."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        raise RunnerUnavailable("The host of PREFTUNE_RUNNER_URL has no address.") from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]
    for address in addresses:
        fault = _fault(address, is_plain=is_plain)
        if fault:
            raise RunnerUnavailable(f"The host of PREFTUNE_RUNNER_URL is {address}, {fault}.")
    return addresses[0]


def _fault(address: IpAddress, *, is_plain: bool) -> str | None:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return _fault(address.ipv4_mapped, is_plain=is_plain)
    if address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA:
        return "which is no address of a server"
    is_own = address.is_private or address in _SHARED
    if is_plain and not is_own:
        return "which is a public address: prompts and the key would go over the internet in the clear; use https"
    return None
