"""Lanes beat while they work and while they are idle, and are missed when they hang in something."""

import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from toy_jobs import InProcessWorker, submit_toy, view, wait_for, wait_for_status
from toy_trainer import Script

from core.services.backend import Backend
from core.services.requests.scores import ScoreClaim
from worker import pulse
from worker.drain import Drain
from worker.light.lane import LightLane, RequestKind
from worker.light.scores import score
from worker.scratch import WorkerScratch

STALL_SECONDS = 1.5


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "STALL_SECONDS", STALL_SECONDS)


class Knot:
    """Holds whoever comes to it until it is untied."""

    def __init__(self) -> None:
        self.is_held, self._is_untied = threading.Event(), threading.Event()

    def hold(self, *_: Any) -> None:
        self.is_held.set()
        assert self._is_untied.wait(60)

    def untie(self) -> None:
        self._is_untied.set()


def test_a_lane_that_trains_beats(backend: Backend) -> None:
    script = Script(steps=30, step_seconds=2 * STALL_SECONDS / 30)
    with InProcessWorker(backend) as worker:
        job_id = submit_toy(backend, script)
        started = time.monotonic()
        while view(backend, job_id).status.value in ("queued", "running"):
            assert not worker.place.beat.is_missing
            time.sleep(0.05)
    assert view(backend, job_id).status.value == "succeeded"
    assert time.monotonic() - started > 2 * STALL_SECONDS, "too short to say anything"


def test_a_lane_that_hangs_in_the_store_is_missed(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    knot, fetch = Knot(), backend.store.get_file

    def get_file(key: str, target: Path) -> None:
        knot.hold()
        fetch(key, target)

    monkeypatch.setattr(backend.store, "get_file", get_file)
    with InProcessWorker(backend) as worker:
        job_id = submit_toy(backend, Script())
        assert knot.is_held.wait(30)
        wait_for(lambda: worker.place.beat.is_missing, "the lane to be missed")
        knot.untie()
        wait_for_status(backend, job_id, "succeeded")
        assert not worker.place.beat.is_missing


def test_a_light_lane_that_hangs_is_missed(backend: Backend) -> None:
    knot = Knot()

    looks = count(1)

    def claim_next(_backend: Backend, _lease_seconds: float) -> ScoreClaim | None:
        if next(looks) == 5:
            knot.hold()
        return None

    drain, scratch = Drain(5), WorkerScratch(backend.settings.scratch_dir)
    lane = LightLane(backend, drain, scratch, 1, [RequestKind(claim_next, score)])
    lane.start()
    while not knot.is_held.wait(0.05):
        assert not lane.beat.is_missing
    wait_for(lambda: lane.beat.is_missing, "the lane to be missed")
    knot.untie()
    wait_for(lambda: not lane.beat.is_missing, "the lane to go on")
    drain.begin()
    lane.join()
    scratch.close()
