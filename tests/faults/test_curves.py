"""The chart of a job whose trainer and whose worker are killed, as every kind of reader sees it."""

import csv
import io
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from api_server import RunningApi, serve
from relay import Relay
from stream_reader import Reader
from toy_jobs import WorkerProcess, attempts_of, check_succeeded, submit_toy, wait_for, wait_for_status, wait_for_step
from toy_trainer import Script

pytestmark = pytest.mark.timeout(600)  # on a busy machine

TIMES = {"lease_seconds": 1.5, "heartbeat_seconds": 0.2, "sweep_seconds": 0.2, "poll_seconds": 0.1}
SCRIPT = Script(steps=24, step_seconds=0.04, checkpoint_every=4, kill_at={"1": 8}, hold_at={"1": 7, "2": 18})
CURVE = [(stage, step) for stage in ("sft", "dpo") for step in range(1, SCRIPT.steps + 1)]

Curve = list[tuple[str, int]]


class Poller(threading.Thread):
    """As the contract says it: `after`, and on `reset` away with everything."""

    def __init__(self, running: RunningApi, job_id: str) -> None:
        super().__init__(daemon=True)
        self._running = running
        self._path = f"/jobs/{job_id}/metrics"
        self.curve: Curve = []
        self.num_resets = 0
        self.is_over = threading.Event()
        self.start()

    def run(self) -> None:
        after = 0
        while True:
            is_last = self.is_over.wait(0.05)
            page = self._running.http.get(self._path, params={"after": after}).json()
            if page["reset"]:
                self.curve, self.num_resets = [], self.num_resets + 1
            self.curve += [(point["stage"], point["step"]) for point in page["points"]]
            after = page["last_seq"]
            if is_last and not page["has_more"]:
                return


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningApi]:
    settings = {"storage_url": (tmp_path / "objects").as_uri(), "stop_grace_seconds": 6.0, "device": "cpu"}
    with serve(tmp_path, num_threads=1, **settings, **TIMES) as made:
        yield made


def test_a_run_killed_twice_has_one_point_per_step_no_fork_and_no_gap(running: RunningApi, tmp_path: Path) -> None:
    backend = running.backend
    job_id = submit_toy(backend, replace(SCRIPT, hold_until=str(tmp_path)))
    with Relay(running.url) as relay:
        poller = Poller(running, job_id)
        readers = [Reader(url, job_id, max_lost_seconds=120) for url in (running.url, relay.url)]

        def wait_until_read(stage: str, step: int) -> None:
            wait_for(
                lambda: all((stage, step) in curve for curve in (poller.curve, *(r.curve() for r in readers))), "it"
            )

        with WorkerProcess(backend, tmp_path / "first.log", worker_name="first") as first:
            wait_until_read("dpo", 7)
            relay.cut()
            (tmp_path / "1").touch()
            wait_until_read("dpo", 18)  # Its trainer has killed itself at 8.
            relay.cut()
            first.send(signal.SIGKILL)
            first.wait()
        with WorkerProcess(backend, tmp_path / "second.log", worker_name="second"):
            wait_for_step(backend, job_id, "dpo", 19)
            relay.cut()
            wait_for_status(backend, job_id, "succeeded", "failed")
        poller.is_over.set()
        for thread in (poller, *readers):
            thread.join(120)
            assert not thread.is_alive()
    check_succeeded(backend, job_id, SCRIPT)
    assert [attempt.outcome for attempt in attempts_of(backend, job_id)] == ["crashed", "lost", "succeeded"]
    assert poller.curve == CURVE
    assert poller.num_resets == 2
    for reader in readers:
        assert reader.curve() == CURVE
        assert len(reader.of("reset")) == 2
        assert reader.of("end") == [{"job_id": job_id, "status": "succeeded"}]
        numbers = [event["seq"] for event in reader.of("event")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert "resume_divergence" not in [event["kind"] for event in reader.of("event")]
    table = running.http.get(f"/jobs/{job_id}/metrics", params={"format": "csv"}).text
    assert [(row["stage"], int(row["step"])) for row in csv.DictReader(io.StringIO(table))] == CURVE
