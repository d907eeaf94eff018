"""Forked processes are what started ones are: our children, with what they were given, and held to the same bounds."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toy_jobs import process_state, wait_for
from warm_processes import CHECKS, SERVICE, WarmPopen, fresh, recognise, warm

from core.confinement import Bounds, confined, find_lack
from core.datasets.check import check_process
from core.datasets.check.check_process import CheckCrashed, check_in_child
from core.datasets.options import CheckOptions
from core.datasets.result import CheckResult

CHECK = [sys.executable, "-m", "core.datasets.check"]


def is_forked(process: "subprocess.Popen[bytes]") -> bool:
    return b"forking_process.py" in Path(f"/proc/{process.pid}/cmdline").read_bytes()


def test_only_known_programs_are_forked() -> None:
    folder = Path("/tmp")
    known = recognise(confined(CHECK, Bounds(writes=[folder])))
    assert known is not None
    assert (known.kind, known.name, known.arguments) == (CHECKS, "core.datasets.check", [])
    assert (known.bounds is None) == (find_lack() is not None)
    api = recognise([sys.executable, "-P", "-m", "cli.main", "api"])
    assert api is not None
    assert (api.kind, api.arguments, api.starts_processes) == (SERVICE, ["api"], True)
    for command in ([sys.executable, "-P", "-m", "cli.main", "doctor"], [sys.executable, "-c", "api"], ["cli.main"]):
        assert recognise(command) is None


def test_a_forked_process_is_our_child_and_ends_as_it_is_told(tmp_path: Path) -> None:
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    environment = check_process._child_environment()
    with WarmPopen(CHECK, env=environment, cwd=tmp_path, **given) as process:
        assert is_forked(process)
        assert os.path.samefile(f"/proc/{process.pid}/cwd", tmp_path)
        assert os.getsid(process.pid) == process.pid
        stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        assert int(stat[1]) == os.getpid()
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    with WarmPopen(CHECK, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL, **given) as process:
        answer, _ = process.communicate(b"no task", timeout=60)
        assert (answer, process.returncode) == (b"", 1)
    wait_for(lambda: process_state(process.pid) == "X", "nothing to be left of it")


ROWS = json.dumps({"prompt": "p", "chosen": "c", "rejected": "r"}) + "\nnot json\n"


def check(folder: Path, name: str) -> CheckResult:
    (folder / name).mkdir()
    (folder / "rows.jsonl").write_text(ROWS)
    options = CheckOptions(on_error="skip")
    with warm(check_process):
        return check_in_child(folder / "rows.jsonl", options, folder / name, timeout_seconds=60, memory_bytes=1 << 30)


def test_a_check_says_the_same_forked_and_started(tmp_path: Path) -> None:
    forked = check(tmp_path, "forked")
    with fresh():
        started = check(tmp_path, "started")
    assert forked == started
    assert (forked.num_rows, forked.num_accepted) == (2, 1)


@pytest.mark.skipif(find_lack() is not None, reason=str(find_lack()))
def test_a_forked_process_is_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is outside of what it may read."""
    monkeypatch.setattr(check_process, "Bounds", lambda writes, reads: Bounds(writes=writes))
    with pytest.raises(CheckCrashed):
        check(tmp_path, "forked")
