"""The pulse of a worker: there while every lane moves, gone with any that does not."""

import logging
import os
import threading
import time
from pathlib import Path

import pytest

from core.settings import SettingsError
from worker import pulse
from worker.pulse import LaneBeat, Liveness


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pulse, "time", clock)
    return clock


def age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def is_touched(pulse: Liveness, path: Path) -> bool:
    os.utime(path, (0, 0))
    pulse.touch()
    return path.stat().st_mtime > 0


def test_one_lane_that_stands_still_is_enough(clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, moving, hung = tmp_path / "pulse", LaneBeat("light"), LaneBeat("training")
    watched = Liveness(path, [moving, hung])
    clock.now += pulse.STALL_SECONDS
    assert is_touched(watched, path), "a single step may take so long"
    clock.now += 1
    moving()
    with caplog.at_level(logging.ERROR):
        assert not is_touched(watched, path)
        assert not is_touched(watched, path)
    assert [record.getMessage() for record in caplog.records] == [
        "the training lane has not moved for 900 s; health checks fail until it does"
    ]
    hung()
    assert is_touched(watched, path)


def test_a_lane_may_rest_as_long_as_it_said(clock: Clock, tmp_path: Path) -> None:
    path, beat = tmp_path / "pulse", LaneBeat()
    watched = Liveness(path, [beat])
    beat(rest_seconds=3600)
    beat()  # of its other thread, which had the work meanwhile
    clock.now += 3600 + pulse.STALL_SECONDS
    assert is_touched(watched, path)
    clock.now += 1
    assert not is_touched(watched, path)


def test_it_goes_on_by_itself_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "TOUCH_SECONDS", 0.01)
    path = tmp_path / "pulse"
    with Liveness(path, []):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while age(path) > 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not path.exists()


def test_without_a_path_there_is_none(tmp_path: Path) -> None:
    num_threads = threading.active_count()
    with Liveness(None, [LaneBeat()]):
        assert threading.active_count() == num_threads


def test_a_path_that_cannot_be_written_to_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"PREFTUNE_PULSE_PATH: .*/none/pulse cannot be written"):
        Liveness(tmp_path / "none" / "pulse", [])
