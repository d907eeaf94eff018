"""What a job that ran out of memory says, and where the figures come from."""

import signal
from pathlib import Path

import pytest

from core import control_groups
from core.control_groups import count_out_of_memory_kills, free_memory_bytes, memory_limit_bytes, num_cores
from core.domain.jobs.failure_codes import FailureCode
from worker.attempt.outcomes import GiveBack, TrainerEnd, judge

MIB = 1024**2


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ours, two levels below the root of all control groups."""
    own = tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path / "root")
    monkeypatch.setattr(control_groups, "_OWN", own)
    folder = tmp_path / "root" / "outer" / "inner"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [("max", "max", None), ("1000", "max", 1000), ("max", "900", 900), ("1000", "900", 900), (None, None, None)],
)
def test_the_lowest_limit_counts(group: Path, inner: str | None, outer: str | None, expected: int | None) -> None:
    for folder, limit in ((group, inner), (group.parent, outer)):
        if limit is not None:
            (folder / "memory.max").write_text(f"{limit}\n")
    (group.parent.parent.parent / "memory.max").write_text("1\n")  # outside of all groups
    assert memory_limit_bytes() == expected


def test_what_is_free_is_below_the_nearest_limit(group: Path) -> None:
    assert free_memory_bytes() is None
    for folder, limit, used in ((group, "max", 100), (group.parent, "1000", 300), (group.parent.parent, "5000", 4900)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
    assert free_memory_bytes() == 100


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [("max 100000", "max 100000", None), ("max 100000", "250000 100000", 2), ("50000 100000", "400000 100000", 1)],
)
def test_the_lowest_quota_of_cores_counts(group: Path, inner: str, outer: str, expected: int | None) -> None:
    assert num_cores() is None
    (group / "cpu.max").write_text(inner + "\n")
    (group.parent / "cpu.max").write_text(outer + "\n")
    assert num_cores() == expected


def test_kills_for_memory_are_counted(group: Path) -> None:
    assert count_out_of_memory_kills() == 0
    (group / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert count_out_of_memory_kills() == 2


def test_cached_files_are_free(group: Path) -> None:
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("900\n")
    (group / "memory.stat").write_text("anon 300\nfile 600\ninactive_file 400\nactive_file 150\n")
    assert free_memory_bytes() == 650


def test_groups_of_version_1(group: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("5:cpu:/other\n4:memory:/outer/inner\n0::/\n")
    inner = tmp_path / "root" / "memory" / "outer" / "inner"
    inner.mkdir(parents=True)
    assert memory_limit_bytes() is None
    (inner / "memory.limit_in_bytes").write_text("1000\n")
    (inner / "memory.usage_in_bytes").write_text("900\n")
    (inner / "memory.stat").write_text("inactive_file 7\ntotal_inactive_file 400\ntotal_active_file 150\n")
    (inner / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (inner.parent / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # none
    (inner.parent / "memory.usage_in_bytes").write_text("5000\n")
    assert (memory_limit_bytes(), free_memory_bytes(), count_out_of_memory_kills()) == (1000, 650, 2)


@pytest.mark.parametrize(
    ("peak", "limit", "facts"),
    [
        (None, None, ""),
        (2048 * MIB, None, " (the trainer had up to 2,048 MiB)"),
        (
            2048 * MIB,
            3000 * MIB,
            " (the trainer had up to 2,048 MiB, the limit of worker and trainer is 3,000 MiB)",
        ),
    ],
)
def test_a_job_out_of_memory_says_what_it_took_and_what_it_may_where_that_is_known(
    peak: int | None, limit: int | None, facts: str
) -> None:
    end = TrainerEnd(
        last=None, returncode=-signal.SIGKILL, was_out_of_memory=True, peak_bytes=peak, memory_limit_bytes=limit
    )
    verdict = judge(end)
    assert isinstance(verdict, GiveBack)
    assert verdict.code is FailureCode.HOST_OOM
    assert verdict.detail is not None
    assert verdict.detail.startswith(f"The machine has too little memory for it{facts}: use")
