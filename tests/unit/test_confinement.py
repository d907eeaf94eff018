"""A child that is taken over finds its own folder and the interpreter, and no secret of this machine."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from core import confinement
from core.confinement import Bounds, confined
from core.datasets.check import check_process
from core.datasets.options import CheckOptions
from worker.attempt.trainer_process import Ended, LaunchPlan, TrainerProcess

pytestmark = pytest.mark.skipif(confinement.find_lack() is not None, reason="this kernel has no Landlock")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def switched_on() -> None:
    confinement.start(is_wanted=True)


def attempt(code: str, *arguments: object, bounds: Bounds) -> str:
    """What a confined child prints; the name of its error if it meets one."""
    guarded = f"import sys\ntry:\n    {code}\nexcept OSError as error:\n    print(type(error).__name__)"
    command = confined([sys.executable, "-c", guarded, *map(str, arguments)], bounds)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def bounds(tmp_path: Path) -> Bounds:
    (tmp_path / "work").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("of the model")
    (tmp_path / "secret").write_text("of the deployment")
    return Bounds(writes=[tmp_path / "work"], reads=[tmp_path / "model"])


def test_what_it_needs_is_there(bounds: Bounds, tmp_path: Path) -> None:
    assert (
        attempt("print(open(sys.argv[1]).read())", tmp_path / "model" / "config.json", bounds=bounds) == "of the model"
    )
    assert attempt("import core, worker, numpy; print(1)", bounds=bounds) == "1"
    write = "import os; open('a', 'w').close(); os.mkdir('d'); os.replace('a', 'd/a'); print(os.listdir('d'))"
    assert attempt(f"import os; os.chdir(sys.argv[1]); {write}", tmp_path / "work", bounds=bounds) == "['a']"


@pytest.mark.parametrize("name", ["secret", "../secret", "work/../secret"])
def test_a_file_outside_is_not_read(bounds: Bounds, tmp_path: Path, name: str) -> None:
    (tmp_path.parent / "secret").write_text("of another project")
    assert attempt("print(open(sys.argv[1]).read())", tmp_path / name, bounds=bounds) == "PermissionError"


def test_a_link_in_its_folder_leads_nowhere(bounds: Bounds, tmp_path: Path) -> None:
    (tmp_path / "work" / "link").symlink_to(tmp_path / "secret")
    assert attempt("print(open(sys.argv[1]).read())", tmp_path / "work" / "link", bounds=bounds) == "PermissionError"


def test_settings_and_data_beside_the_code_are_not_read(bounds: Bounds) -> None:
    """A checkout's `.env` and `data` lie beside the packages that it imports."""
    assert attempt("print(open(sys.argv[1]).read())", ROOT / "pyproject.toml", bounds=bounds) == "PermissionError"
    assert attempt("print(open(sys.argv[1]).read())", "/etc/shadow", bounds=bounds) == "PermissionError"


def test_nothing_outside_is_written(bounds: Bounds, tmp_path: Path) -> None:
    for path in (tmp_path / "new", tmp_path / "model" / "config.json", ROOT / "core" / "new.py"):
        assert attempt("open(sys.argv[1], 'w')", path, bounds=bounds) == "PermissionError"
    assert (tmp_path / "model" / "config.json").read_text() == "of the model"


def test_the_parents_environment_is_not_read(bounds: Bounds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFTUNE_API_KEY", "of the deployment")
    code = "import os; print(open(f'/proc/{os.getppid()}/environ').read())"
    assert attempt(code, bounds=bounds) == "PermissionError"


def test_no_connection_and_no_signal_leaves_it(bounds: Bounds) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        connect = "import socket; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2); print('connected')"
        assert attempt(connect, port, bounds=bounds) == "PermissionError"
        several = Bounds(writes=bounds.writes, allows_tcp=True)
        assert attempt(connect, port, bounds=several) == "connected"
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        assert attempt(f"import os; os.kill({os.getpid()}, 10); print('sent')", bounds=bounds) == "PermissionError"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_trainer_is_confined(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    work = tmp_path / "work"
    work.mkdir()
    code = "import sys; sys.exit(3 if open(sys.argv[1]).read() else 0)"
    ended = []
    for path in (tmp_path / "secret", work / "own"):
        (work / "own").write_text("x")
        plan = LaunchPlan(command=(sys.executable, "-c", code, str(path)), num_threads=1)
        process = TrainerProcess(plan, work)
        last = process.inbox.get(timeout=60)
        assert isinstance(last, Ended)
        ended.append(last.returncode)
        process.close()
    assert ended == [1, 3]


def test_the_check_of_an_upload_is_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    popen = subprocess.Popen

    def note(command: list[str], **options: object) -> object:
        started.append(command)
        return popen(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(check_process.subprocess, "Popen", note)
    source, work = tmp_path / "pairs.jsonl", tmp_path / "work"
    source.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n' * 3)
    work.mkdir()
    check_process.check_in_child(source, CheckOptions(), work, timeout_seconds=60, memory_bytes=2**29)
    (command,) = started
    launcher = command[: command.index(sys.executable, 1)]
    read = [*launcher, sys.executable, "-c", "import sys; open(sys.argv[1])"]
    (tmp_path / "secret").write_text("x")
    assert subprocess.run([*read, str(source)], capture_output=True, check=False).returncode == 0
    assert subprocess.run([*read, str(tmp_path / "secret")], capture_output=True, check=False).returncode == 1


def test_switched_off_or_absent_is_said_and_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command = [sys.executable, "-c", "pass"]
    confinement.start(is_wanted=False)
    assert confined(command, Bounds(writes=[])) == command
    monkeypatch.setattr(confinement.confined_exec, "version", lambda: 0)
    confinement.start(is_wanted=True)
    assert confined(command, Bounds(writes=[])) == command
    assert caplog.text.count("children_not_confined") == 2


@pytest.mark.parametrize(("version", "num_gaps"), [(2, 3), (3, 2), (4, 1), (5, 1), (6, 0), (7, 0)])
def test_what_an_older_kernel_does_not_hold_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: int, num_gaps: int
) -> None:
    monkeypatch.setattr(confinement.confined_exec, "version", lambda: version)
    confinement.start(is_wanted=True)
    said = caplog.text
    assert ("children_confined_in_part" in said) == (num_gaps > 0)
    assert said.count("held from Linux") == num_gaps
