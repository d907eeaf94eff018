"""`GET /jobs/{id}/stream`: live, replayed, rewound, with slow clients and with many; and the client's reading of it."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from api_server import RunningApi, pointers, serve
from backends import PROJECT, checkpoint, claim, point, publication
from relay import Relay
from stream_reader import Reader
from toy_jobs import wait_for

from api.live import feeds, stream
from core.domain.trainer_protocol import TrainerEvent
from core.services.attempts import lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.curves import live
from core.services.curves.live import MAX_POINTS
from core.services.jobs import jobs
from preftune import ApiError, Client, ConnectionFailed
from preftune.stream import parse


@pytest.fixture
def held(api: RunningApi) -> Iterator[ClaimedJob]:
    """The only live job, claimed."""
    api.submit()
    claimed = claim(api.backend)
    lifecycle.begin(claimed)
    yield claimed
    if api.http.get(f"/jobs/{claimed.job_id}").json().get("status") == "running":
        lifecycle.finish_succeeded(claimed, publication(api.backend, claimed))


def finish(api: RunningApi, held: ClaimedJob) -> None:
    lifecycle.finish_succeeded(held, publication(api.backend, held))


def test_points_status_and_events_come_as_they_happen_until_the_end(api: RunningApi, held: ClaimedJob) -> None:
    reader = Reader(api.url, held.job_id)
    reader.wait_for(lambda r: r.of("status"))
    written = time.monotonic()
    recording.record_points(held, [point(1), point(2)])
    reader.wait_for(lambda r: r.steps() == [1, 2])
    assert time.monotonic() - written < 2
    event = TrainerEvent(level="warning", kind="odd", message="line\none\u2028 two\r", data={"x": "\n\ndata: y"})
    recording.record_events(held, [event])
    finish(api, held)
    reader.join(10)
    assert not reader.is_alive()
    assert [event.kind for event in reader.events][-1] == "end"
    assert reader.of("end") == [{"job_id": held.job_id, "status": "succeeded"}]
    assert reader.of("status")[-1]["status"] == "succeeded"
    page = api.http.get(f"/jobs/{held.job_id}/metrics").json()
    assert [found for batch in reader.of("metric") for found in batch] == page["points"]
    assert reader.of("event") == api.http.get(f"/jobs/{held.job_id}/events").json()["data"]
    job = api.http.get(f"/jobs/{held.job_id}").json()
    assert {name: job[name] for name in reader.of("status")[-1]} == reader.of("status")[-1]


def test_a_client_that_comes_back_gets_what_it_missed_and_nothing_twice(api: RunningApi, held: ClaimedJob) -> None:
    recording.record_points(held, [point(1), point(2)])
    first = Reader(api.url, held.job_id)
    first.wait_for(lambda r: r.steps() == [1, 2])
    seen = first.events[-1].id
    recording.record_points(held, [point(3)])
    finish(api, held)
    first.join(10)
    second = Reader(api.url, held.job_id, after=seen)
    second.join(10)
    assert second.steps() == [3]
    num_events = int(seen.split(".")[1])
    assert [event["seq"] for event in second.of("event")] == [num_events + 1]
    by_query = api.http.get(f"/jobs/{held.job_id}/stream", params={"after": seen})
    assert [event.data for event in parse([by_query.content]) if event.kind == "metric"] == second.of("metric")


def test_a_long_curve_is_replayed_in_pages_and_at_most_four_events_a_second(api: RunningApi, held: ClaimedJob) -> None:
    num_points = 3 * MAX_POINTS + 1
    recording.record_points(held, [point(step) for step in range(1, num_points + 1)])
    finish(api, held)
    reader = Reader(api.url, held.job_id)
    reader.join(20)
    assert reader.steps() == list(range(1, num_points + 1))
    paced = [at for at, event in zip(reader.times, reader.events, strict=True) if event.kind in ("metric", "status")]
    assert len(paced) >= 5
    # A busy machine holds single arrivals up, and the next ones come close behind.
    assert paced[-1] - paced[0] > 0.25 * (len(paced) - 1) - 0.6


def test_a_rewind_resets_the_chart(api: RunningApi, held: ClaimedJob) -> None:
    recording.record_points(held, [point(step) for step in (1, 2, 3)])
    checkpoint(api.backend, held, 1)
    live = Reader(api.url, held.job_id)
    live.wait_for(lambda r: r.steps() == [1, 2, 3])
    away = live.events[-1].id
    lifecycle.release(held, lifecycle.AttemptOutcome.DRAINED)
    again = claim(api.backend)
    lifecycle.begin(again)
    live.wait_for(lambda r: r.of("reset"))
    recording.record_points(again, [point(2), point(3), point(4)])
    finish(api, again)
    returned = Reader(api.url, held.job_id, after=away)
    for reader in (live, returned):
        reader.join(10)
        assert reader.steps() == [1, 2, 3, 4]
        assert len(reader.of("reset")) == 1


def test_a_rewind_that_leaves_nothing_resets_once(api: RunningApi, held: ClaimedJob) -> None:
    recording.record_points(held, [point(1)])
    live = Reader(api.url, held.job_id)
    live.wait_for(lambda r: r.steps() == [1])
    lifecycle.release(held, lifecycle.AttemptOutcome.DRAINED)
    again = claim(api.backend)
    lifecycle.begin(again)
    live.wait_for(lambda r: r.of("reset"))
    page = api.http.get(f"/jobs/{held.job_id}/metrics", params={"after": 1}).json()
    assert (page["reset"], page["points"]) == (True, [])
    calm = api.http.get(f"/jobs/{held.job_id}/metrics", params={"after": page["last_seq"]}).json()
    assert calm["reset"] is False
    time.sleep(0.6)
    recording.record_points(again, [point(1), point(2)])
    finish(api, again)
    live.join(10)
    assert (live.steps(), len(live.of("reset"))) == ([1, 2], 1)


def test_many_clients_share_one_poller_and_its_reads(
    api: RunningApi, held: ClaimedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = [Reader(api.url, held.job_id) for _ in range(40)]
    for reader in readers:
        reader.wait_for(lambda r: r.of("status"))
    reads: list[Any] = []
    read_changes = live.read_changes
    monkeypatch.setattr(live, "read_changes", lambda *args: reads.append(args) or read_changes(*args))
    for step in range(1, 11):
        recording.record_points(held, [point(step)])
        time.sleep(0.1)
    finish(api, held)
    for reader in readers:
        reader.join(15)
        assert reader.steps() == list(range(1, 11))
    assert len(reads) < len(readers)  # for about six moves of the job


def test_a_slow_client_is_dropped_and_holds_up_nobody(
    api: RunningApi, held: ClaimedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SEND_SECONDS", 1.0)
    values = {f"value_{n}": 0.123456789 + n for n in range(50)}
    for start in range(0, 8000, 1000):
        recording.record_points(held, [point(step, **values) for step in range(start, start + 1000)])
    address = urlsplit(api.url)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((address.hostname, address.port))
        slow.sendall(f"GET /jobs/{held.job_id}/stream HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        wait_for(lambda: api.feeds.num_streams == 1, "the slow client")
        quick = Reader(api.url, held.job_id)
        quick.wait_for(lambda r: len(r.steps()) == 8000)
        wait_for(lambda: api.feeds.num_streams == 1, "the slow client's end")
        finish(api, held)
        quick.join(10)
        assert not quick.is_alive()


def test_streams_are_counted_and_too_many_are_told_to_poll(
    api: RunningApi, held: ClaimedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.shares.streams, "most", 1)
    reader = Reader(api.url, held.job_id)
    reader.wait_for(lambda r: r.of("status"))
    refused = api.http.get(f"/jobs/{held.job_id}/stream")
    assert (refused.status_code, refused.json()["code"]) == (429, "too-many-streams")
    assert int(refused.headers["retry-after"]) > 0
    finish(api, held)
    reader.join(10)
    wait_for(lambda: api.feeds.num_streams == 0, "the end of all streams")


def test_a_client_that_leaves_is_forgotten(api: RunningApi, held: ClaimedJob) -> None:
    with api.http.stream("GET", f"/jobs/{held.job_id}/stream") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = response.iter_lines()  # httpx closes the answer when its generator goes
        assert next(lines).startswith("retry:")
        assert api.feeds.num_streams == 1
    wait_for(lambda: api.feeds.num_streams == 0, "the stream's end")


def test_heartbeats_keep_an_idle_stream_alive(
    api: RunningApi, held: ClaimedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stream.HEARTBEAT_SECONDS < 15
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.2)
    with api.http.stream("GET", f"/jobs/{held.job_id}/stream") as response:
        comments = (line for line in response.iter_lines() if line.startswith(":"))
        assert [next(comments) for _ in range(3)] == [": still here"] * 3


def test_what_is_not_there_and_what_is_no_cursor(api: RunningApi, held: ClaimedJob) -> None:
    assert api.http.get("/jobs/job_none/stream").json()["code"] == "job-not-found"
    for cursor in ("x", "1", "1.", "-1.2", "1.2.3", "1" * 19 + ".0"):
        by_header = api.http.get(f"/jobs/{held.job_id}/stream", headers={"Last-Event-ID": cursor})
        assert (by_header.status_code, pointers(by_header)) == (422, ["/Last-Event-ID"])
        by_query = api.http.get(f"/jobs/{held.job_id}/stream", params={"after": cursor})
        assert (by_query.status_code, pointers(by_query)) == (422, ["/after"])


def test_head_ends_at_once(api: RunningApi, held: ClaimedJob) -> None:
    response = api.http.head(f"/jobs/{held.job_id}/stream")
    assert (response.status_code, response.content) == (200, b"")
    wait_for(lambda: api.feeds.num_streams == 0, "the stream's end")


def test_a_deleted_job_ends_its_stream(api: RunningApi, held: ClaimedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "POLL_SECONDS", 1.0)
    reader = Reader(api.url, held.job_id)
    reader.wait_for(lambda r: r.of("status"))
    finish(api, held)
    jobs.delete(api.backend, PROJECT, held.job_id)
    reader.join(10)
    assert (reader.events[-1].kind, reader.events[-1].data["status"]) == ("end", "deleted")


def test_the_client_goes_on_where_a_lost_connection_left_off(api: RunningApi, held: ClaimedJob) -> None:
    with Relay(api.url) as relay:
        reader = Reader(relay.url, held.job_id)
        for step in range(1, 6):
            recording.record_points(held, [point(step)])
            reader.wait_for(lambda r, step=step: r.steps()[-1:] == [step])
            relay.cut()
        finish(api, held)
        reader.join(10)
        assert relay.num_connections == 6
    assert reader.steps() == [1, 2, 3, 4, 5]
    assert [event["seq"] for event in reader.of("event")] == list(range(1, len(reader.of("event")) + 1))


def test_the_client_gives_up_after_its_time_and_at_once_on_a_refusal(api: RunningApi, held: ClaimedJob) -> None:
    with Relay(api.url) as relay, Client(relay.url) as client:
        relay.is_refusing = True
        with pytest.raises(ConnectionFailed):
            next(client.jobs.stream(held.job_id, max_lost_seconds=0.5))
        relay.is_refusing = False
        with pytest.raises(ApiError, match="job_none"):
            next(client.jobs.stream("job_none"))


def test_stopping_the_server_ends_its_streams(tmp_path: Path) -> None:
    with serve(tmp_path) as running:
        job_id = running.submit()["id"]
        reader = Reader(running.url, job_id, max_lost_seconds=0)
        reader.wait_for(lambda r: r.of("status"))
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
