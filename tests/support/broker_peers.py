"""Producers and consumers of the file broker, to be run in processes of their own."""

import time
from multiprocessing.queues import Queue as ProcessQueue
from pathlib import Path

from kombu import Connection, Consumer, Producer, Queue

from core.queue import file_broker

QUEUE = Queue("train", routing_key="train")


def connect(directory: Path, **options: object) -> Connection:
    file_broker.register()
    transport_options = file_broker.prepare(directory) | {"polling_interval": 0.01} | options
    return Connection(f"{file_broker.SCHEME}://localhost/", transport_options=transport_options)


def send(directory: Path, bodies: list[dict[str, object]]) -> None:
    with connect(directory, max_waiting=10**6) as connection:
        producer = Producer(connection)
        for body in bodies:
            producer.publish(body, routing_key="train", declare=[QUEUE], serializer="json")


def receive(directory: Path, seconds: float) -> list[dict[str, object]]:
    """Everything, until nothing has come for so long."""
    found: list[dict[str, object]] = []
    with connect(directory) as connection:

        def take(body: dict[str, object], message: object) -> None:
            found.append(body)
            message.ack()  # type: ignore[attr-defined]

        with Consumer(connection, [QUEUE], callbacks=[take], accept=["json"]):
            quiet_since = time.monotonic()
            while time.monotonic() - quiet_since < seconds:
                try:
                    connection.drain_events(timeout=0.1)
                    quiet_since = time.monotonic()
                except TimeoutError:
                    continue
    return found


def produce(directory: str, first: int, count: int, size: int) -> None:
    send(Path(directory), [{"n": number, "text": "x" * size} for number in range(first, first + count)])


def consume(directory: str, results: "ProcessQueue[list[tuple[int, int]]]") -> None:
    results.put([(int(str(body["n"])), len(str(body["text"]))) for body in receive(Path(directory), 2.0)])
