"""Ranks under torch's agent: they end together, on nobody's SIGTERM but the agent's, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from toy_jobs import children_of, wait_for

from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_spec import JobRequest, resolve_request
from core.domain.trainer_protocol import ASSIGNMENT_FILE, Assignment, Failed, Hello, decode_trainer_message
from worker.processes.start import command_of

AGENT = """
import sys
from pathlib import Path
from core.training.launcher import Group, launch
for failure in launch(Group(run_id="run", num_ranks=2), sys.argv[2:], Path(sys.argv[1])):
    print(failure.rank, failure.returncode, failure.report)
"""
RANK = """
import ctypes, os, sys, time
from pathlib import Path
from core.children.launched import obey_agent
obey_agent()
rank, folder = os.environ["RANK"], Path(sys.argv[1])
print("noise")
(folder / f"port-{rank}").write_text(os.environ["MASTER_PORT"])
(folder / f"up-{rank}").write_text(str(os.getpid()))
"""
STUCK = "while True: ctypes.CDLL(None).pause()"  # as in a collective operation: no signal handler is run
WAITS = "while not (folder / 'go').exists(): time.sleep(0.01)"
FAILS = """
from core.children.launched import report_failure
if rank == "1":
    report_failure(ValueError("no"), ["said by 1"])
    sys.exit(1)
while True: ctypes.CDLL(None).pause()
"""


@dataclass(frozen=True)
class Launched:
    agent: subprocess.Popen[str]
    ranks: list[int]
    folder: Path

    def end(self) -> list[str]:
        """Wait for the agent; return its lines. All ranks are gone then."""
        said, _ = self.agent.communicate(timeout=25)
        for rank in self.ranks:
            wait_for(lambda rank=rank: not is_running(rank), "the end of a rank", 5)
        return said.splitlines()


@contextmanager
def launched(folder: Path, behaviour: str, *, awaits: bool = True) -> Iterator[Launched]:
    script = folder / "rank.py"
    script.write_text(RANK + behaviour)
    command = [sys.executable, "-c", AGENT, str(folder / "agent"), sys.executable, str(script), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as agent:
        try:
            paths = [folder / f"up-{rank}" for rank in range(2)]
            if awaits:
                wait_for(lambda: all(path.exists() and path.read_text() for path in paths), "the ranks")
            yield Launched(agent, [int(path.read_text()) for path in paths] if awaits else [], folder)
        finally:
            agent.kill()


def is_running(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_a_rank_that_is_killed_ends_the_others_at_once(tmp_path: Path) -> None:
    with launched(tmp_path, STUCK) as group:
        os.kill(group.ranks[1], signal.SIGKILL)
        assert sorted(group.end()) == ["0 143 None", "1 -9 None", "noise"]


def test_the_report_of_a_failed_rank_is_handed_over(tmp_path: Path) -> None:
    with launched(tmp_path, FAILS, awaits=False) as group:
        assert sorted(group.end()) == ["0 143 None", "1 1 ('said by 1',)", "noise"]


def test_ranks_end_with_their_agent(tmp_path: Path) -> None:
    with launched(tmp_path, STUCK) as group:
        group.agent.kill()
        assert group.end() == ["noise"]  # of rank 0: the other rank's goes to the log


def test_a_signal_to_every_process_ends_none_and_the_store_listens_on_one_address(tmp_path: Path) -> None:
    with launched(tmp_path, WAITS) as group:
        assert sorted(children_of(group.agent.pid)) == sorted(group.ranks)
        for pid in (group.agent.pid, *group.ranks):
            os.kill(pid, signal.SIGTERM)
        port = int((tmp_path / "port-0").read_text())
        socket.create_connection(("127.0.0.1", port), 5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), 5)
        (tmp_path / "go").touch()
        assert group.end() == ["noise"]
        assert group.agent.returncode == 0


def test_what_fails_a_trainer_of_several_is_said_once(tmp_path: Path) -> None:
    """The real process, without a base model."""
    request = JobRequest(base_model="tiny", dataset_id="ds_1")
    spec = resolve_request(request, num_parameters=1_000_000, num_pairs=1000, default_beta=0.1)
    assignment = Assignment(
        job_id="job_1",
        attempt=1,
        spec=spec.model_dump(),
        base_model_dir=str(tmp_path / "missing"),
        rows=str(tmp_path / "rows.jsonl"),
        num_devices=2,
        fast_precision="fp32",
    )
    (tmp_path / ASSIGNMENT_FILE).write_text(assignment.dump())
    with subprocess.Popen(
        [*command_of("device_group"), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        said = [decode_trainer_message(line) for line in process.stdout]
    assert [type(message) for message in said] == [Hello, Failed]
    assert said[-1].code == FailureCode.BAD_BASE_MODEL
    assert process.returncode == 1
