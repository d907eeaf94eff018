"""Work directories: each worker's own, whoever starts at the same moment and whoever was killed before."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from worker import scratch
from worker.scratch import WorkerScratch

Meddle = Callable[[Path, Path], None]


def other_starts_and_cleans(scratch_dir: Path, _directory: Path) -> None:
    """It takes what is not locked yet for a leftover."""
    WorkerScratch(scratch_dir).close()


def other_is_about_to_remove(_scratch_dir: Path, directory: Path) -> None:
    """It holds the lock, and its removal comes later than ours would look."""
    _held.append(take_lock(directory))


take_lock = scratch._lock
_held: list[int | None] = []


@pytest.mark.parametrize("meddle", [other_starts_and_cleans, other_is_about_to_remove])
def test_a_worker_that_starts_at_the_same_moment_does_not_take_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meddle: Meddle
) -> None:
    meddled: list[Path] = []

    def lock(directory: Path) -> int | None:
        if not meddled:
            meddled.append(directory)
            meddle(tmp_path, directory)
        return take_lock(directory)

    monkeypatch.setattr(scratch, "_lock", lock)
    worker = WorkerScratch(tmp_path)
    shutil.rmtree(meddled[0], ignore_errors=True)
    with worker.directory("job") as work_dir:
        assert work_dir.is_dir()
        assert meddled[0] not in work_dir.parents


def test_a_lock_got_after_its_file_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_calls = 0

    def lock(directory: Path) -> int | None:
        nonlocal num_calls
        num_calls += 1
        descriptor = take_lock(directory)
        if num_calls == 1:
            shutil.rmtree(directory)
        return descriptor

    monkeypatch.setattr(scratch, "_lock", lock)
    with WorkerScratch(tmp_path).directory("job") as work_dir:
        assert work_dir.is_dir()


def test_directories_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = tmp_path / "workers" / "dead"
    dead.mkdir(parents=True)
    living = WorkerScratch(tmp_path)
    with living.directory("job") as work_dir:
        WorkerScratch(tmp_path).close()
        assert work_dir.is_dir()
    assert not dead.exists()


def test_without_any_lock_the_worker_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_lock", lambda _directory: None)
    with pytest.raises(OSError, match="could be locked"):
        WorkerScratch(tmp_path)
