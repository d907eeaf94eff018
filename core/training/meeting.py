"""Meeting of the nodes of a run in a store that the first one holds, and a line between each two of them.

The store listens on one address only, since torch's store knows no sign-in. Ranks of different nodes connect to each
other later, on ports that the operating system chooses. There a closed port, or a network that fails on the way, would
only be a long silence: so the nodes prove beforehand that each reaches each other, and listen to each other meanwhile.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import DistStoreError, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

LOOPBACK = "127.0.0.1"
_STORE_TIMEOUT = timedelta(minutes=5)
"""Time limit for one answer of the store."""
_PRESENCE_TIMEOUT = timedelta(hours=2)
"""Time limit for the other nodes to come to the store: they may have a base model to fetch before."""
_PROOF_TIMEOUT = timedelta(minutes=2)
"""Time limit for a node that has come to reach the others."""
_CONNECT_SECONDS = 10.0
_FIRST_TRIES_SECONDS = 15.0
"""Time in which the store's address is tried again."""
_BEAT_SECONDS = 1.0
_MAX_GREETING_BYTES = 1024


class NodesUnreachable(Exception):
    """Raised where the nodes of a run cannot meet. The text says which address, and what to open."""


def _nothing(_what: object) -> None:
    return


@dataclass(frozen=True, kw_only=True)
class Place:
    """A node's place in the meeting."""

    run_id: str
    """Name of this attempt alone, not to be guessed: no other run's process has these keys of the store."""
    num_nodes: int = 1
    node: int = 0
    address: str = LOOPBACK
    """Address of the first node, at which its store listens."""
    port: int = 0
    """Port there; 0 takes a free one."""
    own_address: str = LOOPBACK
    """Address at which the other nodes reach this one."""
    silence_seconds: float = 60.0
    """A node of which nothing was heard for so long is lost."""


@dataclass(frozen=True)
class Listeners:
    """Whoever hears of the meeting."""

    on_listening: Callable[[int], None] = _nothing
    """Called with the store's port, on the first node."""
    on_silence: Callable[[str], None] = _nothing
    """Called by a thread when a node that was there is not heard any more; the text says which."""


def meet(place: Place, listeners: Listeners) -> TCPStore:
    """Open the store, or connect to it, and wait until all nodes have reached each other.

    Raises:
        NodesUnreachable: a node does not come, or cannot be reached by another one.
    """
    if place.node == 0:
        store = _serve(place, listeners.on_listening)
    else:
        where = f"node 0 at {place.address}, port {place.port}"
        _connect(place.address, place.port, where, _FIRST_TRIES_SECONDS).close()
        store = TCPStore(place.address, place.port, is_master=False, timeout=_STORE_TIMEOUT, wait_for_workers=False)
    if place.num_nodes > 1:
        with _reaching_first(place, listeners.on_silence):
            _Lines(place, PrefixStore(f"{place.run_id}/meeting", store), listeners.on_silence).open()
    return store


def _serve(place: Place, on_listening: Callable[[int], None]) -> TCPStore:
    listener = _listen(place.address, place.port, "PREFTUNE_NODE_PORT is to be a free port")
    port = listener.getsockname()[1]
    store = TCPStore(
        place.address,
        port,
        is_master=True,
        timeout=_STORE_TIMEOUT,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
    on_listening(port)
    return store


@contextmanager
def _reaching_first(place: Place, on_silence: Callable[[str], None]) -> Iterator[None]:
    """Look meanwhile whether the first node is still reached: its store's answer would be waited for for hours."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_BEAT_SECONDS):
            try:
                socket.create_connection((place.address, place.port), place.silence_seconds).close()
            except ConnectionError:  # it has ended, which others notice
                return
            except OSError as error:
                if not is_over.is_set():
                    on_silence(
                        f"Node 0 at {place.address}, port {place.port}, cannot be reached any more: "
                        f"{error.strerror or 'no answer'}. Its host has failed, or the network between the nodes."
                    )
                return

    if place.node:
        _start(look)
    try:
        yield
    finally:
        is_over.set()


class _Lines:
    """Connections to and from every other node, on which each says every second that it is there."""

    def __init__(self, place: Place, store: Store, on_silence: Callable[[str], None]) -> None:
        self._place = place
        self._store = store
        self._on_silence = on_silence
        self._others = [node for node in range(place.num_nodes) if node != place.node]

    def open(self) -> None:
        """Connect each way with every other node, and go on in threads. Raises NodesUnreachable."""
        place, store = self._place, self._store
        door = _listen(place.own_address, 0, "PREFTUNE_NODE_ADDRESS is to be an address of this machine")
        _start(self._welcome, door)
        store.set(f"door/{place.node}", f"{place.own_address} {door.getsockname()[1]}")
        lines = []
        for node in self._others:
            address, port = _await(store, f"door/{node}", node, _PRESENCE_TIMEOUT).split()
            lines.append(_connect(address, int(port), f"node {node} at {address} (tried port {port})"))
        for line in lines:
            line.sendall(f"{place.run_id} {place.node}\n".encode())
            _start(_beat, line)
        store.set(f"done/{place.node}", "")
        for node in self._others:
            _await(store, f"done/{node}", node, _PROOF_TIMEOUT)

    def _welcome(self, door: socket.socket) -> None:
        """Take the line of each other node, and of nobody else."""
        missing = set(self._others)
        with door:
            while missing:
                line, _ = door.accept()
                line.settimeout(_CONNECT_SECONDS)
                try:
                    name, _, node = _read_line(line).rpartition(" ")
                except OSError:
                    name, node = "", ""
                if name != self._place.run_id or not node.isdecimal() or int(node) not in missing:
                    line.close()
                    continue
                missing.discard(int(node))
                _start(self._hear, line, int(node))

    def _hear(self, line: socket.socket, node: int) -> None:
        """Listen until the other node hangs up, as it does at its end."""
        line.settimeout(self._place.silence_seconds)
        host = line.getpeername()[0]
        try:
            while line.recv(64):
                continue
        except TimeoutError:
            seconds = self._place.silence_seconds
            self._on_silence(
                f"Nothing was heard of node {node} at {host} for {seconds:.0f} s: its host has failed, or the network "
                "between the nodes."
            )
        except OSError:  # it was killed, which others notice
            return


def _beat(line: socket.socket) -> None:
    try:
        while True:
            line.sendall(b".")
            time.sleep(_BEAT_SECONDS)
    except OSError:  # the other node has ended
        return


def _start(work: Callable[..., None], *args: object) -> None:
    threading.Thread(target=work, args=args, name="nodes", daemon=True).start()


def _read_line(line: socket.socket) -> str:
    found = b""
    while not found.endswith(b"\n") and len(found) < _MAX_GREETING_BYTES:
        piece = line.recv(1)
        if not piece:
            break
        found += piece
    return found.decode(errors="replace").strip()


def _await(store: Store, key: str, node: int, timeout: timedelta) -> str:
    try:
        store.wait([key], timeout)
    except DistStoreError as error:
        minutes = timeout.total_seconds() / 60
        raise NodesUnreachable(
            f"Node {node} of the job did not come within {minutes:.0f} minutes, or cannot reach the others; the log of "
            "its worker says why."
        ) from error
    return str(store.get(key), "utf-8")


def _connect(address: str, port: int, where: str, try_seconds: float = 0.0) -> socket.socket:
    """Connect, and try again for a while. Raises NodesUnreachable."""
    deadline = time.monotonic() + try_seconds
    while True:
        try:
            return socket.create_connection((address, port), _CONNECT_SECONDS)
        except OSError as error:
            if time.monotonic() > deadline:
                reason = error.strerror or "no answer"
                raise NodesUnreachable(
                    f"A node of the job cannot connect to {where}: {reason}. Workers that train together need all TCP "
                    "ports of each other open in their private network, at PREFTUNE_NODE_ADDRESS."
                ) from error
        time.sleep(0.5)


def _listen(address: str, port: int, advice: str) -> socket.socket:
    try:
        return socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise NodesUnreachable(
            f"A node of the job cannot listen at {address}, port {port} ({error.strerror}): {advice}."
        ) from error
