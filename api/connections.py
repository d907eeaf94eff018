"""Open connections of a process: bounded for all and for each address, by closing those that do nothing.

A connection without a request costs nothing to close: clients open another one. So idle ones never keep anybody out.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Protocol

from api.access.proxies import Network, is_trusted
from api.access.shares import address_group

MAX_CONNECTIONS = 1000
SPARE = 32
"""Connections beyond the bound, so that those who are refused and health checks get an answer."""


class Connection(Protocol):
    @property
    def is_idle(self) -> bool: ...

    def close(self) -> None: ...


class Connections:
    """Connections by address, the oldest first; lives on the event loop. `part`: what one address may take."""

    def __init__(self, part: float, trusted: Iterable[Network] = (), most: int = MAX_CONNECTIONS) -> None:
        self._most = most
        self._most_of_address = max(1, int(most * part))
        self._trusted = tuple(trusted)
        self._all: OrderedDict[Connection, str] = OrderedDict()
        self._of: dict[str, OrderedDict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def opened(self, connection: Connection, address: str) -> None:
        """Count a connection; over a bound the oldest idle one is closed, or the new one where none is."""
        name = "" if is_trusted(address, self._trusted) else address_group(address)
        self._all[connection] = name
        ours = self._of.setdefault(name, OrderedDict())
        ours[connection] = None
        if name and len(ours) > self._most_of_address:
            self._make_room(ours, connection, len(ours) - self._most_of_address)
        if len(self._all) > self._most:
            self._make_room(self._all, connection, len(self._all) - self._most)

    def closed(self, connection: Connection) -> None:
        name = self._all.pop(connection, None)
        if name is not None:
            del self._of[name][connection]
            if not self._of[name]:
                del self._of[name]

    def _make_room(self, among: Iterable[Connection], newest: Connection, num_over: int) -> None:
        idle = next((other for other in among if other is not newest and other.is_idle), None)
        if idle is not None:
            self.closed(idle)
            idle.close()
        elif num_over > SPARE:
            self.closed(newest)
            newest.close()
