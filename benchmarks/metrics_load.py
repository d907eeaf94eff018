"""Clients of a running job's curves, in one process: pollers at 1 Hz and open streams. Prints one JSON object.

    python benchmarks/metrics_load.py URL PATH_OF_POLL [PATH_OF_STREAM] --pollers 200 --streams 200 --seconds 30

`{after}` in the path of a poll stands for the last number read. Speaks plain HTTP/1.1 over asyncio: on a machine of two
cores the clients must cost as little as they can. Points carry `written_at`, the time of their step.
"""

import argparse
import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson

TIMEOUT_SECONDS = 30


@dataclass
class Tally:
    latencies: list[float] = field(default_factory=list)
    poll_delays: list[float] = field(default_factory=list)
    stream_delays: list[float] = field(default_factory=list)
    num_stream_events: int = 0
    errors: list[str] = field(default_factory=list)
    busiest_second: int = 0
    """Most metric and status events that one stream got within a second."""


class Connection:
    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, path: str) -> dict[str, str]:
        """Sends a GET; returns status and headers of its answer."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._address, limit=2**24)
        assert self._reader is not None
        host = f"{self._address[0]}:{self._address[1]}"
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in head[1:] if line)}
        return headers | {"status": head[0].split()[1]}

    async def body(self, headers: dict[str, str]) -> bytes:
        assert self._reader is not None
        if "content-length" in headers:
            return await self._reader.readexactly(int(headers["content-length"]))
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self):  # type: ignore[no-untyped-def]
        assert self._reader is not None
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


async def poll(make: Connection, path: str, until: float, tally: Tally) -> None:
    """Once a second, beginning somewhere within the first."""
    after = 0
    due = time.time() + random.random()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.time()))
        started = time.perf_counter()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                headers = await make.send(path.format(after=after))
                body = await make.body(headers)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            tally.errors.append(f"poll: {type(error).__name__}")
            return
        tally.latencies.append(time.perf_counter() - started)
        if headers["status"] != "200":
            tally.errors.append(f"poll: {headers['status']}")
        elif "points" in (page := orjson.loads(body)):
            note_delay(page["points"], tally.poll_delays if after else [])
            after = page["last_seq"]
        due += 1.0


async def stream(make: Connection, path: str, until: float, tally: Tally) -> None:
    times: list[float] = []
    try:
        async with asyncio.timeout(until - time.time()):
            headers = await make.send(path)
            if headers["status"] != "200":
                tally.errors.append(f"stream: {headers['status']}")
                return
            async for chunk in make.chunks():
                for frame in chunk.split(b"\n\n"):
                    take(frame, times, tally)
    except TimeoutError:
        pass
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        tally.errors.append(f"stream: {type(error).__name__}")
    for index, begin in enumerate(times):
        within = sum(1 for at in times[index : index + 10] if at - begin < 1.0)
        tally.busiest_second = max(tally.busiest_second, within)


def take(frame: bytes, times: list[float], tally: Tally) -> None:
    lines = frame.split(b"\n")
    if len(lines) < 3:
        return
    kind = lines[1].removeprefix(b"event: ")
    if kind in (b"metric", b"status"):
        times.append(time.time())
    if kind == b"metric":
        tally.num_stream_events += 1
        note_delay(orjson.loads(lines[2].removeprefix(b"data: ")), tally.stream_delays)


def note_delay(points: list[dict[str, dict[str, float]]], delays: list[float]) -> None:
    """Of the oldest point: it has waited longest."""
    if points and "written_at" in points[0]["values"]:
        delays.append(time.time() - points[0]["values"]["written_at"])


def percentile(values: list[float], share: float) -> float | None:
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 4) if values else None


async def run(options: argparse.Namespace) -> Tally:
    address = urlsplit(options.url)
    tally = Tally()
    until = time.time() + options.seconds

    def connection() -> Connection:
        return Connection(str(address.hostname), address.port or 80)

    jobs = [poll(connection(), options.poll_path, until, tally) for _ in range(options.pollers)]
    if options.stream_path:
        jobs += [stream(connection(), options.stream_path, until, tally) for _ in range(options.streams)]
    await asyncio.gather(*jobs)
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("poll_path")
    parser.add_argument("stream_path", nargs="?")
    parser.add_argument("--pollers", type=int, default=200)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    found = asyncio.run(run(parser.parse_args()))
    print(
        json.dumps(
            {
                "num_polls": len(found.latencies),
                "poll_seconds": {f"p{int(q * 100)}": percentile(found.latencies, q) for q in (0.5, 0.95, 0.99)},
                "poll_delay_seconds": {
                    "p95": percentile(found.poll_delays, 0.95),
                    "max": percentile(found.poll_delays, 1),
                },
                "num_stream_events": found.num_stream_events,
                "stream_delay_seconds": {
                    "p95": percentile(found.stream_delays, 0.95),
                    "max": percentile(found.stream_delays, 1),
                },
                "most_stream_events_in_a_second": found.busiest_second,
                "num_errors": len(found.errors),
                "errors": sorted(set(found.errors))[:5],
            }
        )
    )
