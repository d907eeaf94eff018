"""Nodes meet in a store, prove that they reach each other, and hear when one falls silent."""

import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from core.training import meeting
from core.training.meeting import Listeners, NodesUnreachable, Place, meet


def start(pool: ThreadPoolExecutor, node: int, port: int, **changes: Any) -> tuple[Future[Any], "queue.Queue[Any]"]:
    """A node in a thread; what it is told comes through the queue."""
    told: queue.Queue[Any] = queue.Queue()
    place = Place(run_id="run", num_nodes=2, node=node, port=port, own_address=f"127.0.0.{node + 1}", **changes)
    return pool.submit(meet, place, Listeners(told.put, told.put)), told


def test_two_nodes_meet_and_share_a_store() -> None:
    with ThreadPoolExecutor(2) as pool:
        first, told = start(pool, 0, 0)
        second, _ = start(pool, 1, told.get(timeout=20))
        first.result(30).set("key", "value")
        assert second.result(30).get("key") == b"value"


def test_an_address_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "_FIRST_TRIES_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NodesUnreachable, match=f"node 0 at 127.0.0.1, port {port}: Connection refused.* all TCP ports"):
        meet(Place(run_id="run", num_nodes=2, node=1, port=port), Listeners())


def test_a_node_that_is_reached_in_the_store_only_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a firewall that lets one port through."""
    real: Callable[..., socket.socket] = socket.create_connection

    def connect(address: tuple[str, int], *args: Any) -> socket.socket:
        if address[0] == "127.0.0.2":
            raise TimeoutError(110, "Connection timed out")
        return real(address, *args)

    monkeypatch.setattr(meeting.socket, "create_connection", connect)
    monkeypatch.setattr(meeting, "_PROOF_TIMEOUT", meeting.timedelta(seconds=2))
    with ThreadPoolExecutor(2) as pool:
        first, told = start(pool, 0, 0)
        second, _ = start(pool, 1, told.get(timeout=20))
        with pytest.raises(NodesUnreachable, match=r"cannot connect to node 1 at 127\.0\.0\.2"):
            first.result(30)
        with pytest.raises(NodesUnreachable, match="Node 0 of the job did not come"):
            second.result(30)


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(NodesUnreachable, match=r"cannot listen at 192\.0\.2\.7, port 0"):
        meet(Place(run_id="run", num_nodes=2, address="192.0.2.7"), Listeners())


def test_silence_is_told_and_a_node_that_hangs_up_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()
    monkeypatch.setattr(meeting, "_beat", lambda line: hold.wait(60))
    with ThreadPoolExecutor(2) as pool:
        first, told = start(pool, 0, 0, silence_seconds=0.3)
        second, _ = start(pool, 1, told.get(timeout=20), silence_seconds=60.0)
        first.result(30), second.result(30)
        assert "Nothing was heard of node 1 at 127.0.0." in told.get(timeout=20)
    hold.set()


def test_a_first_node_that_is_not_reached_any_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the network fails while it still waits for others."""
    real: Callable[..., socket.socket] = socket.create_connection
    num_made = 0

    def connect(*args: Any) -> socket.socket:
        nonlocal num_made
        num_made += 1
        if num_made > 2:
            raise TimeoutError(110, "Connection timed out")
        return real(*args)

    monkeypatch.setattr(meeting, "_BEAT_SECONDS", 0.05)
    monkeypatch.setattr(meeting, "_PRESENCE_TIMEOUT", meeting.timedelta(seconds=5))
    ports: queue.Queue[int] = queue.Queue()
    store = meeting._serve(Place(run_id="run"), ports.put)
    monkeypatch.setattr(meeting.socket, "create_connection", connect)
    with ThreadPoolExecutor(1) as pool:
        second, told = start(pool, 1, ports.get(timeout=20))
        assert "Node 0 at 127.0.0.1, port " in told.get(timeout=20)
        with pytest.raises(NodesUnreachable):
            second.result(30)
    assert store.port
