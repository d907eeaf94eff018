"""A receiver of webhooks on loopback: answers as it is told, and keeps what came."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Arrived:
    headers: dict[str, str]
    body: bytes
    status: int
    """As it was answered."""

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event


@dataclass
class Receiver:
    url: str
    answer: Callable[[dict[str, Any]], int] = lambda event: 200
    arrived: list[Arrived] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, is_enough: Callable[[list[Arrived]], bool], seconds: float = 30) -> list[Arrived]:
        with self.changed:
            assert self.changed.wait_for(lambda: is_enough(self.arrived), seconds), self.arrived
            return list(self.arrived)

    def taken(self) -> list[dict[str, Any]]:
        """Events that were answered with success, in their order."""
        with self.changed:
            return [each.event for each in self.arrived if each.status < 300]


@contextmanager
def receive() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = receiver.answer(json.loads(body))
            with receiver.changed:
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.arrived.append(Arrived(headers, body, status))
                receiver.changed.notify_all()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", f"{receiver.url}/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
