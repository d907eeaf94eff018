"""The broker in a directory: nothing lost, nothing twice, nothing torn, by several processes at once."""

import multiprocessing
import os
from multiprocessing.queues import Queue as ProcessQueue
from pathlib import Path
from queue import Empty

import pytest
from broker_peers import QUEUE, connect, consume, produce, receive, send
from kombu import Producer
from kombu.exceptions import ChannelError

from core.queue import file_broker

SPAWN = multiprocessing.get_context("spawn")


@pytest.mark.parametrize(("count", "size"), [(150, 20), (40, 200_000)])
def test_two_producers_and_two_consumers_lose_and_double_nothing(tmp_path: Path, count: int, size: int) -> None:
    results: ProcessQueue[list[tuple[int, int]]] = SPAWN.Queue()
    processes = [SPAWN.Process(target=consume, args=(str(tmp_path), results)) for _ in range(2)]
    processes += [SPAWN.Process(target=produce, args=(str(tmp_path), k * count, count, size)) for k in range(2)]
    for process in processes:
        process.start()
    received = [pair for _ in range(2) for pair in results.get(timeout=60)]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert sorted(number for number, _ in received) == list(range(2 * count))
    assert {length for _, length in received} == {size}
    assert os.listdir(tmp_path) == []


def test_messages_come_in_the_order_they_were_sent(tmp_path: Path) -> None:
    send(tmp_path, [{"n": number} for number in range(20)])
    assert [body["n"] for body in receive(tmp_path, 0.3)] == list(range(20))


@pytest.mark.parametrize(
    "content", [b"", b"{", b'"text"', b"[]", b"\xff\xfe", b"{}", b'{"properties": {}, "body": ""}']
)
def test_a_torn_or_foreign_message_is_dropped(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "00000000000000000001_torn.train.msg").write_bytes(content)
    send(tmp_path, [{"n": 1}])
    assert [body["n"] for body in receive(tmp_path, 0.3)] == [1]


def test_an_unfinished_message_is_not_seen_and_goes_once_it_is_old(tmp_path: Path) -> None:
    unfinished = tmp_path / ".half.tmp"
    unfinished.write_bytes(b'{"half": ')
    assert receive(tmp_path, 0.2) == []
    assert unfinished.exists()
    os.utime(unfinished, (1, 1))
    file_broker.prepare(tmp_path)
    assert not unfinished.exists()


def test_a_deleted_directory_is_made_anew(tmp_path: Path) -> None:
    directory = tmp_path / "broker"
    with connect(directory) as connection:
        channel = connection.default_channel
        directory.rmdir()
        with pytest.raises(Empty):
            channel._get("train")
        Producer(channel).publish({"n": 1}, routing_key="train", declare=[QUEUE])
    assert [body["n"] for body in receive(directory, 0.2)] == [1]


def test_messages_that_nobody_takes_do_not_pile_up(tmp_path: Path) -> None:
    with connect(tmp_path, max_waiting=3) as connection:
        for number in range(10):
            Producer(connection).publish({"n": number}, routing_key="train", declare=[QUEUE])
    assert len(os.listdir(tmp_path)) == 3


def test_a_queue_name_is_no_path(tmp_path: Path) -> None:
    with connect(tmp_path) as connection, pytest.raises(ChannelError):
        connection.default_channel._put("../up", {})


def test_files_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "broker"
    send(directory, [{"n": 1}])
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
