"""Addresses that webhooks may go to: public ones over https, and those that the operator lists.

A name is resolved at every attempt, and the connection goes to the address that was judged: a name that means another
address a moment later gains nothing.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from core.domain.errors import FieldError, InvalidRequest
from core.settings import SettingsError

WEBHOOK_SETTING = "PREFTUNE_WEBHOOK_ALLOWED_HOSTS"
MAX_URL_CHARS = 2048
MAX_HOST_CHARS = 253
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_EMBEDDING = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
"""Networks of IPv6 whose addresses lead on to addresses of IPv4."""
_SPECIAL = tuple(ipaddress.ip_network(text) for text in ("fec0::/10", "::/96", "::ffff:0:0:0/96", "192.0.0.0/24"))
"""Networks for special purposes that `is_global` of some versions of Python takes for public ones."""
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(InvalidRequest):
    code = "webhook-address-refused"
    title = "Webhooks may not go to this address"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where one attempt goes."""

    scheme: str
    host: str
    """Host name in the URL, which the certificate is for."""
    port: int
    address: str
    """Address to connect to."""
    path: str
    """Path with the query."""


@dataclass(frozen=True)
class AllowedHosts:
    """What the operator allows besides public addresses."""

    names: frozenset[str]
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    setting: str = WEBHOOK_SETTING

    @classmethod
    def parse(cls, text: str, setting: str = WEBHOOK_SETTING) -> Self:
        """Parse the setting of that name. Raises SettingsError for a network that has host bits set."""
        names, networks = set(), []
        for part in filter(None, (part.strip().lower() for part in text.split(","))):
            try:
                networks.append(ipaddress.ip_network(part))
            except ValueError:
                if "/" in part:
                    raise SettingsError(f"{setting}: {part} is not a network") from None
                names.add(part.rstrip("."))
        return cls(frozenset(names), tuple(networks), setting)

    def allows(self, host: str, address: IpAddress) -> bool:
        """Tell whether the operator lists this host or address."""
        return host in self.names or any(address in network for network in self.networks)


def check_url(url: str) -> None:
    """Check the form of an endpoint's URL. Raises AddressRefused, which names the fault."""
    _split(url)


def resolve(url: str, allowed: AllowedHosts) -> Target:
    """Find the address that a URL means, judged. Raises AddressRefused, OSError where the name has none."""
    scheme, host, port, path = _split(url)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]
    for address in addresses:
        if allowed.allows(host, address):
            continue
        if not _is_public(address):
            raise _refused(
                f"{host} is {address}, which is not a public address; the operator can list it in {allowed.setting}"
            )
        if scheme != "https":
            raise _refused("must be https; http is for hosts that the operator lists")
    return Target(scheme=scheme, host=host, port=port, address=str(addresses[0]), path=path)


def host_header(target: Target) -> str:
    """Return the header `Host` of a request to the target."""
    usual = {"https": 443, "http": 80}[target.scheme]
    name = f"[{target.host}]" if ":" in target.host else target.host
    return name if target.port == usual else f"{name}:{target.port}"


def _split(url: str) -> tuple[str, str, int, str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("is not a URL") from None
    host = (parts.hostname or "").rstrip(".").lower()
    if parts.scheme not in ("https", "http") or not host:
        raise _refused("must be an https URL with a host")
    if not _is_address(host) and not (_HOST.fullmatch(host) and len(host) <= MAX_HOST_CHARS):
        raise _refused("must have a host name of letters, digits, `-` and `.`, or an address")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise _refused("must hold no user, password or fragment")
    if len(url) > MAX_URL_CHARS or any(character <= " " or character == "\x7f" for character in url):
        raise _refused(f"must have at most {MAX_URL_CHARS} characters, without blanks")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_public(address: IpAddress) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return _is_public(address.ipv4_mapped)
    if any(address in network for network in (*_EMBEDDING, *_SPECIAL)):
        return False
    return address.is_global and not address.is_multicast


def _refused(why: str) -> AddressRefused:
    return AddressRefused(f"url: {why}.", errors=[FieldError("/url", why)])
