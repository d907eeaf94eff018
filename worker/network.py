"""This worker's place in the private network of workers that train jobs on several nodes together."""

import fcntl
import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, ip_address
from pathlib import Path
from uuid import uuid4

from core.domain.jobs.gangs import Seat
from core.settings import Settings, SettingsError

_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B
_INTERFACES_6 = Path("/proc/net/if_inet6")
_MIN_HOLD_SECONDS = 30.0
_LOOKS_IN_HOLD = 2
"""A gang is held so long that idle workers look for a job so many times meanwhile."""


@dataclass(frozen=True, kw_only=True)
class NodeNetwork:
    address: str
    port: int
    """0: a free one."""
    interface: str
    """Name of the network interface, to which the connections of trainers are bound."""


def network_of(settings: Settings) -> NodeNetwork | None:
    """Return the network that the settings name; None: jobs on several nodes are not taken. Raises SettingsError."""
    address = settings.node_address
    if address is None:
        return None
    try:
        version = ip_address(address).version
    except ValueError:
        raise SettingsError(f"PREFTUNE_NODE_ADDRESS: {address} is no IP address, such as 10.0.0.5") from None
    if not sys.platform.startswith("linux"):
        raise SettingsError("PREFTUNE_NODE_ADDRESS: jobs on several nodes need Linux")
    interface = _find_interface(address, version)
    if interface is None:
        found = ", ".join(f"{name} {own}" for name, own in _own_addresses()) or "none"
        raise SettingsError(f"PREFTUNE_NODE_ADDRESS: {address} is no address of this machine; it has {found}")
    return NodeNetwork(address=address, port=settings.node_port, interface=interface)


def seat_of(network: NodeNetwork, settings: Settings) -> Seat:
    """Return the seat in gangs of this process."""
    hold = max(_MIN_HOLD_SECONDS, _LOOKS_IN_HOLD * settings.poll_seconds)
    return Seat(member=uuid4().hex, address=network.address, hold_seconds=hold)


def _find_interface(address: str, version: int) -> str | None:
    """Find the interface that an own address belongs to: one with that address, else one with its network."""
    if not _is_own(address, version):
        return None
    if version == 6:
        return _find_interface_6(address)
    wanted, known = IPv4Address(address), _own_addresses()
    exact = [name for name, own in known if own.ip == wanted]
    return next(iter(exact or [name for name, own in known if wanted in own.network]), None)


def _is_own(address: str, version: int) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _own_addresses() -> list[tuple[str, IPv4Interface]]:
    """Return the first IPv4 address of each interface, with its network."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                address, mask = (fcntl.ioctl(probe, code, request)[20:24] for code in (_SIOCGIFADDR, _SIOCGIFNETMASK))
            except OSError:  # it has none
                continue
            own = IPv4Interface(f"{socket.inet_ntoa(address)}/{socket.inet_ntoa(mask)}")
            found.append((name, own))
    return found


def _find_interface_6(address: str) -> str | None:
    wanted = ip_address(address).packed.hex()
    for line in _INTERFACES_6.read_text().splitlines():
        fields = line.split()
        if fields[0] == wanted:
            return fields[-1]
    return None
