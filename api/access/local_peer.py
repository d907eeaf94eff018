"""Check of the process at the other end of a loopback connection, for a service that has no key.

A proxy on the same machine connects from loopback and may name a loopback `Host`, so neither tells it from its owner's
shell. The kernel does: it knows the user of the peer's socket, the processes that hold it, and their other sockets.
Vouched for is a process of the service's own user that neither listens for other machines nor talks with one: a shell's
curl, a script, a local browser. A proxy (of any user, root included) and a tunnel hold a socket that is not loopback.
What the kernel does not show (other systems than Linux, other namespaces of processes) is not vouched for.

Format of the tables: https://docs.kernel.org/networking/proc_net_tcp.html
"""

import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Endpoint = tuple[str, int]
_PROC = Path("/proc")
_TABLES = ("tcp", "tcp6", "udp", "udp6")
_SOCKET = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True)
class Socket:
    local: Endpoint
    remote: Endpoint
    uid: int
    inode: int

    @property
    def is_private(self) -> bool:
        """Whether the socket reaches this machine only."""
        local, remote = (ipaddress.ip_address(end[0]) for end in (self.local, self.remote))
        return local.is_loopback and (remote.is_loopback or remote.is_unspecified)


def is_vouched(client: Endpoint, server: Endpoint) -> bool:
    """Whether the peer `client` of our socket `server` is a private process of our own user."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        sockets = {socket.inode: socket for socket in read_sockets()}
        peer = _find(sockets.values(), (_plain(client[0]), client[1]), (_plain(server[0]), server[1]))
        if peer is None or peer.uid != os.geteuid():
            return False
        holders = list(_holders(peer.inode))
    except (OSError, ValueError):
        return False
    inodes = set().union(*holders)
    return bool(holders) and all(sockets[inode].is_private for inode in inodes if inode in sockets)


def read_sockets() -> Iterator[Socket]:
    """Return all internet sockets of this network namespace that a process still holds."""
    for name in _TABLES:
        table = _PROC / "net" / name
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        for line in lines:
            fields = line.split()
            if int(fields[9]):
                yield Socket(_endpoint(fields[1]), _endpoint(fields[2]), int(fields[7]), int(fields[9]))


def _find(sockets: Iterable[Socket], client: Endpoint, server: Endpoint) -> Socket | None:
    return next((found for found in sockets if found.local == client and found.remote == server), None)


def _holders(inode: int) -> Iterator[set[int]]:
    """Return the sockets of each process that holds this one, as far as permitted."""
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        found = _sockets_of(folder)
        if inode in found:
            yield found


def _sockets_of(process: Path) -> set[int]:
    found = set()
    try:
        for descriptor in os.scandir(process / "fd"):
            matched = _SOCKET.fullmatch(_target(descriptor.path))
            if matched:
                found.add(int(matched[1]))
    except OSError:  # it ended, or belongs to another user
        return set()
    return found


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _endpoint(text: str) -> Endpoint:
    """Parse an address as the kernel prints it: words of 32 bits in the machine's own order."""
    address, _, port = text.partition(":")
    words = [int(address[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(address), 8)]
    return _plain(str(ipaddress.ip_address(b"".join(words)))), int(port, 16)


def _plain(address: str) -> str:
    """Return one canonical text for an address, however it was written or mapped."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
