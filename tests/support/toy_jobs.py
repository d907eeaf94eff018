"""Jobs of the toy trainer, workers that run them, and what must hold afterwards."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

from backends import PROJECT, add_dataset, submit
from sqlalchemy import select
from toy_trainer import Script, expected_weights
from warm_processes import PROCESS_NAME, WarmPopen, warm

from core.database.tables.jobs import Attempt
from core.database.tables.objects import Checkpoint, CheckpointStatus
from core.database.tables.records import JobEvent, MetricPoint
from core.domain.jobs.stored_files import StoredTree
from core.services.backend import Backend
from core.services.jobs import artifacts, jobs
from core.services.requests.requests import View, is_ended
from core.services.views import JobView
from core.storage import keys
from core.storage.trees import read_manifest
from worker.attempt import trainer_process
from worker.attempt.records.tracking import Target
from worker.attempt.runner import Runner
from worker.attempt.trainer_process import LaunchPlan
from worker.attempt.workplace import Workplace
from worker.device import CPU
from worker.drain import Drain
from worker.network import NodeNetwork
from worker.scratch import WorkerScratch

TESTS = Path(__file__).resolve().parent
TOY_COMMAND = (sys.executable, str(TESTS / "toy_trainer.py"))
TOY_GROUP_COMMAND = (sys.executable, str(TESTS / "toy_group.py"))
ROWS = b'{"line": 1, "prompt": "p", "chosen": "c", "rejected": "r"}\n' * 4
PATIENCE_SECONDS = 120
"""For a machine that has much else to do; costs nothing when all is well."""


def submit_toy(backend: Backend, script: Script | None = None, dataset_id: str = "ds_1", **fields: object) -> str:
    """A queued job of the toy trainer; returns its id."""
    key = keys.dataset_rows(PROJECT, dataset_id)
    if not any(backend.store.list(keys.dataset_prefix(PROJECT, dataset_id))):
        add_dataset(backend, dataset_id, num_rows=len(ROWS.splitlines()))
        backend.store.put_bytes(key, ROWS)
    values = asdict(script or Script())
    metadata = {"toy": json.dumps({name: value for name, value in values.items() if value != asdict(Script())[name]})}
    return submit(backend, dataset_id=dataset_id, metadata=metadata, **fields).id


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def await_end(look: Callable[[], View], seconds: float) -> View:
    """A request of the light lane once it has ended, or as it is after that time."""
    deadline = time.monotonic() + seconds
    while not is_ended(found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def view(backend: Backend, job_id: str) -> JobView:
    return jobs.get(backend, PROJECT, job_id)


def wait_for_status(backend: Backend, job_id: str, *wanted: str, seconds: float = PATIENCE_SECONDS) -> JobView:
    try:
        wait_for(lambda: view(backend, job_id).status.value in wanted, " or ".join(wanted), seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; {view(backend, job_id)}; {messages(backend, job_id)}") from None
    return view(backend, job_id)


def wait_for_step(backend: Backend, job_id: str, stage: str, step: int) -> None:
    order = {"sft": 0, "dpo": 1}

    def reached() -> bool:
        return any((order[p.stage.value], p.step) >= (order[stage], step) for p in points(backend, job_id))

    wait_for(reached, f"{stage} step {step}")


def points(backend: Backend, job_id: str) -> list[MetricPoint]:
    statement = select(MetricPoint).where(MetricPoint.job_id == job_id).order_by(MetricPoint.seq)
    return backend.database.read(lambda session: list(session.scalars(statement)))


def events(backend: Backend, job_id: str) -> list[JobEvent]:
    statement = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)
    return backend.database.read(lambda session: list(session.scalars(statement)))


def messages(backend: Backend, job_id: str) -> list[str]:
    return [event.message for event in events(backend, job_id)]


def attempts_of(backend: Backend, job_id: str) -> list[Attempt]:
    statement = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.attempt)
    return backend.database.read(lambda session: list(session.scalars(statement)))


def checkpoints_of(backend: Backend, job_id: str) -> list[Checkpoint]:
    """Committed ones, oldest first."""
    mine = (Checkpoint.job_id == job_id, Checkpoint.status == CheckpointStatus.COMMITTED)
    statement = select(Checkpoint).where(*mine).order_by(Checkpoint.created_at, Checkpoint.step)
    return backend.database.read(lambda session: list(session.scalars(statement)))


def check_succeeded(backend: Backend, job_id: str, script: Script) -> None:
    """The result is that of an undisturbed run, and everything that rows name is there."""
    job = view(backend, job_id)
    assert job.status.value == "succeeded", (job, messages(backend, job_id))
    artifact = artifacts.get(backend, PROJECT, job_id)
    weights = next(file for file in artifact.files if file.path == "model.safetensors")
    assert backend.store.get_bytes(weights.key) == expected_weights(ROWS, script)
    read_manifest(backend.store, StoredTree(prefix=artifact.prefix, manifest_sha256=artifact.manifest_sha256))
    check_curve(backend, job_id, script)
    finished = [event for event in events(backend, job_id) if event.to_status in ("succeeded", "failed", "cancelled")]
    assert len(finished) == 1
    for checkpoint in checkpoints_of(backend, job_id):
        read_manifest(backend.store, checkpoint.tree)
    numbers = [attempt.attempt for attempt in attempts_of(backend, job_id)]
    assert numbers == list(range(1, len(numbers) + 1))


def check_curve(backend: Backend, job_id: str, script: Script) -> None:
    """Every step of both stages once, in order."""
    steps = [(point.stage.value, point.step) for point in points(backend, job_id)]
    assert steps == [(stage, step) for stage in ("sft", "dpo") for step in range(1, script.steps + 1)]


class InProcessWorker:
    """A worker in threads of this process, with trainer processes of its own."""

    def __init__(
        self,
        backend: Backend,
        command: Sequence[str] = TOY_COMMAND,
        targets: Sequence[Target] = (),
        num_devices: int = 1,
        network: NodeNetwork | None = None,
        group_command: Sequence[str] = TOY_GROUP_COMMAND,
    ) -> None:
        self.backend = backend
        self.drain = Drain(backend.settings.stop_grace_seconds)
        self.scratch = WorkerScratch(backend.settings.scratch_dir)
        self.place = Workplace(
            backend=backend,
            launch=LaunchPlan(command=command, num_threads=1, group_command=group_command),
            device="cpu",
            drain=self.drain,
            targets=targets,
            num_devices=num_devices,
            network=network,
        )
        self.runner = Runner(self.place, CPU, self.scratch)
        self._thread = threading.Thread(target=self.runner.poll, daemon=True)
        self._warm = warm(trainer_process)

    def __enter__(self) -> "InProcessWorker":
        self._warm.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.drain.begin()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        self._warm.__exit__(None, None, None)
        self.scratch.close()

    def work_dirs(self) -> list[Path]:
        return sorted(path for path in self.scratch._mine.iterdir() if path.is_dir())


class ServiceProcess:
    """One of the scripts beside this module, with the settings of a backend."""

    def __init__(self, script: str, backend: Backend, log: Path, **settings: object) -> None:
        chosen = backend.settings.model_dump(include=backend.settings.model_fields_set) | settings
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFTUNE_")}
        environment |= {f"PREFTUNE_{name.upper()}": str(value) for name, value in chosen.items()}
        environment["PREFTUNE_DATABASE_URL"] = backend.database.engine.url.render_as_string(hide_password=False)
        environment.setdefault("PREFTUNE_STORAGE_URL", (backend.settings.data_dir.parent / "objects").as_uri())
        self.log = log
        with log.open("ab") as output:
            self._process = WarmPopen(
                [sys.executable, str(TESTS / script)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        return self._process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class WorkerProcess(ServiceProcess):
    """`toy_worker.py`: the worker's own entry point, with the toy trainer."""

    def __init__(self, backend: Backend, log: Path, **settings: object) -> None:
        super().__init__("toy_worker.py", backend, log, **settings)


def children_of(parent_pid: int) -> list[int]:
    """By /proc; the dead are left out, and the process that forks others for this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        if int(fields[1]) == parent_pid and fields[0] != "Z" and name != PROCESS_NAME:
            found.append(int(stat.parent.name))
    return found


def process_state(pid: int) -> str:
    """As the kernel says: R, S, T (stopped), Z (dead, not reaped) …; X for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "X"


def is_alive(pid: int) -> bool:
    return process_state(pid) not in "ZX"
