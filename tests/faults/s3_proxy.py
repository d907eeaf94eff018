"""An S3 server's troublesome neighbour: errors before and after the work is done, silence, cut lines, flipped bytes."""

import http.client
import random
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

Trouble = Literal["none", "500", "503", "500 after", "reset", "reset after", "silence", "flip"]
SILENCE_SECONDS = 40.0
"""Longer than the client waits."""
_ERROR = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>fault</Message></Error>'


class S3FaultProxy:
    """`choose` says, for method and path of each request, what goes wrong."""

    def __init__(self, target_port: int, choose: Callable[[str, str], Trouble]) -> None:
        self.choose = choose
        self.counts: dict[str, int] = {}
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                return

            def do_GET(self) -> None:
                proxy._serve(self, target_port)

            do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler, target_port: int) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        trouble = self.choose(handler.command, handler.path)
        self.counts[trouble] = self.counts.get(trouble, 0) + 1
        if trouble in ("500", "503"):
            self._refuse(handler, int(trouble))
        elif trouble == "reset":
            self._cut(handler)
        elif trouble == "silence":
            time.sleep(SILENCE_SECONDS)
            self._cut(handler)
        else:
            self._pass_on(handler, target_port, body, trouble)

    def _pass_on(self, handler: BaseHTTPRequestHandler, target_port: int, body: bytes, trouble: Trouble) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", target_port, timeout=60)
        connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in handler.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if trouble == "500 after":
            self._refuse(handler, 500)
        elif trouble == "reset after":
            self._cut(handler)
        else:
            if trouble == "flip" and content:
                place = random.randrange(len(content))
                content = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
            self._answer(handler, answer, content)

    def _answer(self, handler: BaseHTTPRequestHandler, answer: http.client.HTTPResponse, content: bytes) -> None:
        handler.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                handler.send_header(name, value)
        if answer.getheader("Content-Length") is None:
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)

    def _refuse(self, handler: BaseHTTPRequestHandler, status: int) -> None:
        content = _ERROR % (b"SlowDown" if status == 503 else b"InternalError")
        handler.send_response_only(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)

    def _cut(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
