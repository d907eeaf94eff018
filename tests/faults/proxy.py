"""A TCP proxy that misbehaves on demand: slow, cut, half-open, refusing, or deaf to answers."""

import asyncio
import contextlib
import threading
from typing import Self


class FaultProxy:
    """Stands before one port of loopback; what it does may change while connections are open."""

    def __init__(self, target_port: int, address: str = "127.0.0.1") -> None:
        """Take the port, and the address at which the proxy listens."""
        self.target_port = target_port
        self.address = address
        self.latency_seconds = 0.0
        self.is_refusing = False
        """New connections are closed at once."""
        self.is_half_open = False
        """Connections stand, and nothing passes in either direction."""
        self.drops_answers = False
        """What is sent arrives and is done; the connection is cut instead of answering."""
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def reset(self) -> None:
        """Cut every connection, without a word."""
        self._loop.call_soon_threadsafe(self._cut_all)

    def _cut_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, self.address, 0))
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        self._cut_all()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        tasks = (self._pass_on(reader, far_writer, is_answer=False), self._pass_on(far_reader, writer, is_answer=True))
        await asyncio.gather(*tasks, return_exceptions=True)
        self._writers -= pair
        for one in pair:
            one.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.latency_seconds:
                    await asyncio.sleep(self.latency_seconds)
                while self.is_half_open:
                    await asyncio.sleep(0.02)
                if is_answer and self.drops_answers:
                    break
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
