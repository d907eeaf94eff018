"""A deployment for one fault run of jobs on two nodes: a worker on each of two hosts, and all that they share here."""

import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from backends import PROJECT
from faults.checker import curve_of, weights_sha256_of
from faults.grounds import Grounds
from faults.nursery import Process
from faults.proxy import FaultProxy
from faults.real_trainer import RealTrainer
from faults.trainers import Expected
from faults.world import Options, World
from nodes.hosts import GATEWAY, MAX_PAIRS, Host, below, make_hosts
from sqlalchemy import func, select
from toy_jobs import attempts_of, children_of, messages
from toy_trainer import Script

from core import failpoints
from core.database.repositories.jobs import find_job
from core.database.tables.jobs import Attempt, Job
from core.database.tables.objects import Artifact

NUM_BROKER_DATABASES = 16
IS_FORKED = "PREFTUNE_TESTS_FRESH" not in os.environ
SLOW = "trainer.message_sent=sleep:0.1@1+"
"""Without computing: so that a job is there for several strikes, and a checkpoint is stored every few steps."""
TRACEBACKS_OF_TRAINERS = "trainer "
"""In each line of a worker's log that it has from a trainer: one whose connection breaks says where."""


class NodesWorld(World):
    def __init__(self, grounds: Grounds, trainer: "NodesTrainer", *, is_forked: bool = IS_FORKED) -> None:
        self._stack = ExitStack()
        self._is_forked = is_forked
        super().__init__(grounds, Options("postgresql", "s3", trainer))
        self.ledger.expected_tracebacks = (TRACEBACKS_OF_TRAINERS,)
        self.hosts = self._stack.enter_context(make_hosts(self.number % (MAX_PAIRS - 1)))
        self._doors = [
            self._stack.enter_context(FaultProxy(port, GATEWAY)).port
            for port in (grounds.postgresql.port, grounds.redis.port, grounds.s3.port)
        ]
        self.workers: dict[int, Process] = {}
        """The one of each host that goes on, by the host's number."""

    @property
    def bound_seconds(self) -> float:
        """Time in which a job is to go on after whatever came upon it, and a worker to be free."""
        return float(self.trainer.times["lease_seconds"]) + 30

    def start_on(self, host: Host, *, is_slow: bool = True) -> Process:
        """Start a worker there, in the place of the one before."""
        name = f"host-{host.number}-{len(self.processes)}"
        log = self.folder / f"{name}.log"
        log.touch()
        database, broker, store = self._doors
        environment = self.environment(
            data_dir=self._data_dir(host),
            worker_name=name,
            worker_lanes="training",
            database_url=f"postgresql://postgres@{GATEWAY}:{database}/{self.database_name}",
            broker_url=f"redis://{GATEWAY}:{broker}/{self.number % NUM_BROKER_DATABASES}",
            s3_endpoint_url=f"http://{GATEWAY}:{store}",
        )
        environment |= {failpoints.VARIABLE: SLOW} if is_slow else {}
        process = Process(host.start_worker(environment, log, is_forked=self._is_forked), "worker")
        self.processes.append(process)
        self.logs.append(log)
        self.workers[host.number] = process
        return process

    def follow(self, job_id: str) -> None:
        """Do nothing: readers of curves cost what the jobs need."""

    def job(self, job_id: str) -> Job:
        found = self.backend.database.read(lambda session: find_job(session, PROJECT, job_id))
        assert found is not None
        return found

    def attempt(self, job_id: str, number: int) -> Attempt | None:
        found = attempts_of(self.backend, job_id)
        return found[number - 1] if len(found) >= number else None

    def parts(self) -> list[tuple[Host, str, int]]:
        """All processes of the workers that go on: host, part and process id."""
        return [(host, part, pid) for host in self.hosts for part, pid in below(self.workers[host.number].pid)]

    def kill(self, host: Host, part: str, pid: int) -> bool:
        """Kill a process; another worker takes the place of one. False where it has just ended."""
        if part == "worker":
            self.workers[host.number].kill()
            self.start_on(host)
            return True
        return send(pid, signal.SIGKILL)

    def directories(self, host: Host, name: str = "*-a*") -> list[Path]:
        """Work directories of attempts on a host."""
        return list(self._data_dir(host).glob(f"scratch/workers/*/{name}"))

    def is_free(self) -> bool:
        """Whether no worker is at work."""
        is_idle = not any(children_of(worker.pid) for worker in self.workers.values())
        return is_idle and not any(self.directories(host) for host in self.hosts)

    def num_artifacts(self, job_id: str) -> int:
        statement = select(func.count()).select_from(Artifact).where(Artifact.job_id == job_id)
        return self.backend.database.read(lambda session: session.scalar(statement) or 0)

    def finish(self) -> list[str]:
        """As of any world; and the hosts are as clean, and no worker ended badly that was not killed."""
        self._stop()
        faults = [
            f"{log.stem} ended with {process.code}"
            for process, log in zip(self.processes, self.logs, strict=True)
            if process.code not in (0, -signal.SIGKILL)
        ]
        for host in self.hosts:
            left = [path.name for path in self._data_dir(host).glob("scratch/workers/*")]
            faults += [f"host {host.number}: work directory {name} is left" for name in left]
        return faults + super().finish()

    def close(self) -> None:
        if not self.is_closed:
            super().close()
            self._stack.close()

    def _data_dir(self, host: Host) -> Path:
        return self.folder / f"host-{host.number}"


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False where the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


class NodesTrainer(RealTrainer):
    """The real trainer on two nodes: torch's agents, and ranks that share every step."""

    name: ClassVar[str] = "nodes"
    times: ClassVar[Mapping[str, Any]] = {
        "lease_seconds": 4.0,
        "heartbeat_seconds": 0.8,
        "sweep_seconds": 1.0,
        "poll_seconds": 1.0,
    }

    def fields(self, script: Script) -> dict[str, Any]:
        both = super().fields(script)
        return both | {
            "nodes": 2,
            "sft": both["sft"] | {"epochs": 1},
            "dpo": both["dpo"] | {"epochs": 12},
            "evaluate_every_steps": 20,
            "sample_prompts": [],
            "score_training_pairs": False,
            "reuse": False,
        }

    def expected(self, grounds: Grounds, script: Script) -> Expected:
        with grounds.training:
            if self.name not in grounds.results:
                grounds.results[self.name] = _undisturbed(grounds, script)
            return grounds.results[self.name]


def _undisturbed(grounds: Grounds, script: Script) -> Expected:
    world = NodesWorld(grounds, NODES)
    for host in world.hosts:
        world.start_on(host, is_slow=False)
    job_id = world.submit(script)
    assert world.wait_for_all("succeeded", seconds=240), (messages(world.backend, job_id), last_lines(world))
    found = Expected(weights_sha256_of(world.backend, job_id), curve_of(world.backend, job_id))
    world.ledger.expected = lambda _script: found
    violations = world.finish()
    assert not violations, violations
    return found


def last_lines(world: World) -> list[str]:
    """What each process has said last."""
    return [f"{log.stem}: {log.read_text(errors='replace')[-1500:]}" for log in world.logs]


NODES = NodesTrainer()
