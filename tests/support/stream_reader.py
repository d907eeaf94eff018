"""Follows a job's stream in a thread, through the client, and keeps what comes."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from toy_jobs import wait_for

from preftune import Client, ConnectionFailed, StreamEvent


class Reader(threading.Thread):
    """Collects a job's events, as the client gives them."""

    def __init__(self, url: str, job_id: str, after: str | None = None, max_lost_seconds: float = 30) -> None:
        super().__init__(daemon=True)
        self.client = Client(url)
        self.source = self.client.jobs.stream(job_id, after=after, max_lost_seconds=max_lost_seconds)
        self.events: list[StreamEvent] = []
        self.times: list[float] = []
        self.start()

    def run(self) -> None:
        with self.client, suppress(ConnectionFailed):
            for event in self.source:
                self.times.append(time.monotonic())
                self.events.append(event)

    def of(self, kind: str) -> list[Any]:
        return [event.data for event in list(self.events) if event.kind == kind]

    def curve(self) -> list[tuple[str, int]]:
        """What a chart holds: points since the last reset."""
        curve: list[tuple[str, int]] = []
        for event in list(self.events):
            if event.kind == "reset":
                curve = []
            elif event.kind == "metric":
                curve += [(point["stage"], point["step"]) for point in event.data]
        return curve

    def steps(self) -> list[int]:
        return [step for _, step in self.curve()]

    def wait_for(self, condition: Callable[["Reader"], object]) -> None:
        wait_for(lambda: condition(self), f"more than {self.events[-5:]}", 20)
