"""Shares of what a process has in common: no key and no address takes more than a part of it.

Addresses are those of clients: behind trusted proxies the forwarded ones. A proxy itself is no client and has no share.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from api.access.proxies import IS_PROXIED, PEER
from api.http.problems import (
    RETRY_AFTER_SECONDS,
    TOO_MANY_ANSWERS,
    TOO_MANY_DOWNLOADS,
    TOO_MANY_REQUESTS,
    TOO_MANY_STREAMS,
    TOO_MANY_WAITING,
    HttpError,
    ProblemKind,
)

MAX_REQUESTS = 1000
MAX_STREAMS = 500
MAX_DOWNLOADS = 256
MAX_WAITING = 256
MAX_ANSWERS = 256
_IPV6_PREFIX = 64
"""Bits of an IPv6 address that tell one subscriber from another."""


@dataclass(frozen=True)
class Holder:
    """Who takes a share."""

    key_id: str | None
    address: str | None


class Share:
    """One kind of thing that can be held; lives on the event loop."""

    def __init__(self, kind: ProblemKind, what: str, most: int, most_of_one: int) -> None:
        self._kind = kind
        self._what = what
        self.most = most
        self.most_of_one = most_of_one
        self.num_held = 0
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(self, holder: Holder, number: int = 1) -> Iterator[None]:
        """Hold one, or a number at once, while the block runs. Raises HttpError (429) over the bound."""
        names = [f"{kind} {name}" for kind, name in (("key", holder.key_id), ("from", holder.address)) if name]
        self._require(names, number)
        self.num_held += number
        taken = dict.fromkeys(names, number)
        self._held.update(taken)
        try:
            yield
        finally:
            self.num_held -= number
            self._held.subtract(taken)
            for name in names:
                if not self._held[name]:
                    del self._held[name]

    def _require(self, names: list[str], number: int) -> None:
        if self.num_held + number > self.most:
            self._refuse(self.num_held, number, f"{self.most} are all this process serves")
        for name in names:
            if self._held[name] + number > self.most_of_one:
                whose = "with this key" if name.startswith("key") else "from this address"
                self._refuse(self._held[name], number, f"{self.most_of_one} are its share", whose)

    def _refuse(self, num_held: int, number: int, bound: str, whose: str = "") -> None:
        more = "" if number == 1 else f" and {number} more are asked for"
        held = f"There are {num_held} {self._what} {whose}".rstrip()
        detail = f"{held}{more}, and {bound}; end some, or try again later."
        raise HttpError(self._kind, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


class Shares:
    """Shares of one process."""

    def __init__(self, part: float, answers_of_one: int) -> None:
        """`part`: of each, what one key or address may take; of answers a number, since a runner takes few."""

        def share(kind: ProblemKind, what: str, most: int) -> Share:
            return Share(kind, what, most, max(1, int(most * part)))

        self.requests = share(TOO_MANY_REQUESTS, "requests in work", MAX_REQUESTS)
        self.streams = share(TOO_MANY_STREAMS, "streams open", MAX_STREAMS)
        self.downloads = share(TOO_MANY_DOWNLOADS, "downloads under way", MAX_DOWNLOADS)
        self.answers = Share(TOO_MANY_ANSWERS, "answers under way", MAX_ANSWERS, answers_of_one)
        self.waiting = share(TOO_MANY_WAITING, "requests waiting", MAX_WAITING)


def shares_of(scope: Scope) -> Shares:
    shares: Shares = scope["app"].state.shares
    return shares


def holder_of(scope: Scope) -> Holder:
    state: dict[str, Any] = scope.get("state", {})
    caller = state.get("caller")
    client = scope.get("client")
    is_proxy = state.get(IS_PROXIED, False) and client is not None and client[0] == state.get(PEER)
    address = None if client is None or is_proxy else address_group(client[0])
    return Holder(caller.key_id if caller is not None else None, address)


def address_group(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the network of an IPv6 subscriber."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
