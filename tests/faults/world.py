"""One little deployment for one fault run: a database and a store of its own, and processes that come and go."""

import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import httpx
from backends import BASE_MODEL, PROJECT, CountingQueue, add_dataset, submit
from faults import nursery
from faults.balancer import Balancer
from faults.checker import Ledger, check
from faults.curve_reader import CurveReader
from faults.grounds import Grounds
from faults.trainers import TOY, Trainer
from pydantic import SecretStr
from servers import S3Server, free_port
from sqlalchemy import select
from toy_jobs import attempts_of, children_of, view
from toy_trainer import Script

from core import failpoints
from core.database.engine import open_engine
from core.database.session import Database
from core.database.tables.jobs import Job
from core.services.backend import Backend
from core.settings import Settings
from core.storage import keys
from core.storage.open_store import open_store
from worker.scratch import WorkerScratch

DatabaseKind = Literal["sqlite", "postgresql"]
StoreKind = Literal["local", "s3"]
COMBINATIONS: tuple[tuple[DatabaseKind, StoreKind], ...] = (
    ("sqlite", "local"),
    ("postgresql", "s3"),
    ("sqlite", "s3"),
    ("postgresql", "local"),
)
TIMES: dict[str, Any] = {
    "lease_seconds": 1.5,
    "heartbeat_seconds": 0.2,
    "sweep_seconds": 0.3,
    "poll_seconds": 0.2,
    "stop_grace_seconds": 20.0,
}
"""A fortieth of the defaults."""
FINAL = ("succeeded", "failed", "cancelled")
DATASET_ID = "ds_1"


@dataclass
class Options:
    database: DatabaseKind = "sqlite"
    store: StoreKind = "local"
    trainer: Trainer = TOY
    settings: dict[str, Any] = field(default_factory=dict)
    """Over `TIMES` and the trainer's; those of processes too."""
    database_url: str | None = None
    """Of a server of one's own, or through a proxy: `{name}` stands for the database."""
    s3_endpoint_url: str | None = None
    """What processes use instead of the server itself."""


class World:
    """`backend` is the checker's and the user's own, past every proxy."""

    def __init__(self, grounds: Grounds, options: Options | None = None) -> None:
        self.grounds = grounds
        self.options = options or Options()
        self.trainer = self.options.trainer
        self.number = grounds.next_number()
        self.folder = grounds.folder / f"run-{self.number}"
        self.folder.mkdir()
        self.processes: list[nursery.Process] = []
        self.logs: list[Path] = []
        self.ledger = Ledger(
            expected=lambda script: self.trainer.expected(grounds, script),
            logs=self.logs,
            secrets=(S3Server.secret_access_key, "canary-api-key"),
        )
        self._readers: list[CurveReader] = []
        self._balancers: list[Balancer] = []
        self.is_closed = False
        grounds.worlds[threading.get_ident()] = self
        self.trainer.make_base_model(grounds, self.folder / "models" / BASE_MODEL)
        self.database_name = f"run_{self.number}"
        settings = Settings(_env_file=None, **self._values())  # type: ignore[call-arg]
        self.backend = Backend(
            settings=settings,
            database=Database(open_engine(self._make_database())),
            store=open_store(settings),
            queue=CountingQueue(),
        )
        add_dataset(self.backend, DATASET_ID, num_rows=len(self.trainer.rows.splitlines()))
        self.backend.store.put_bytes(keys.dataset_rows(PROJECT, DATASET_ID), self.trainer.rows)

    def _values(self) -> dict[str, Any]:
        values = {
            **TIMES,
            **self.trainer.times,
            "data_dir": self.folder / "data",
            "models_dir": self.folder / "models",
            "storage_url": (self.folder / "objects").as_uri(),
            "broker_url": "none",
            "device": "cpu",
            "num_threads": 1,
            "api_key": SecretStr("canary-api-key"),
        }
        if self.options.store == "s3":
            values |= {
                "storage_url": f"s3://run-{self.number}/objects",
                "s3_endpoint_url": self.grounds.s3.endpoint_url,
                "s3_access_key_id": SecretStr(S3Server.access_key_id),
                "s3_secret_access_key": SecretStr(S3Server.secret_access_key),
            }
        return values | self.options.settings

    def _make_database(self) -> str:
        if self.options.database == "postgresql":
            return self.grounds.postgresql.create_database(self.database_name, "template_faults")
        path = self.folder / "preftune.db"
        shutil.copy(self.grounds.sqlite_template(), path)
        return f"sqlite:///{path}"

    def move_database(self, path: Path) -> None:
        """SQLite, to another file; before anything runs. As a backup, since readers of curves go on."""
        old = str(self.backend.database.engine.url.database)
        with closing(sqlite3.connect(old)) as source, closing(sqlite3.connect(path)) as target:
            source.backup(target)
        self.backend.database.close()
        self.backend = replace(self.backend, database=Database(open_engine(f"sqlite:///{path}")))

    def keep_database(self, path: Path) -> None:
        """As `move_database`, but once everything has ended: its file system is about to go."""
        for process in self._stop():
            process.wait()
        self.move_database(path)

    def environment(self, **settings: Any) -> dict[str, str]:
        url = self.backend.database.engine.url.render_as_string(hide_password=False)
        if self.options.database_url is not None:
            url = self.options.database_url.format(name=self.database_name)
        values = self._values() | {"database_url": url}
        if self.options.s3_endpoint_url is not None:
            values["s3_endpoint_url"] = self.options.s3_endpoint_url
        values |= settings
        return {
            f"PREFTUNE_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in values.items()
            if value is not None
        }

    def start(self, kind: str = "worker", *, strike: str = "", **settings: Any) -> nursery.Process:
        """`strike`: what happens at failpoints, as `core.failpoints` reads it."""
        log = self.folder / f"{kind.replace(' ', '-')}-{len(self.processes)}.log"
        log.touch()  # the checker may come before the process has opened it
        if strike:  # a trainer that strikes leaves notes outside of its work directory
            settings.setdefault("confine_children", False)
        environment = self.environment(**settings) | ({failpoints.VARIABLE: strike} if strike else {})
        process = nursery.start(kind, environment, log, self.trainer.command)
        self.processes.append(process)
        self.logs.append(log)
        return process

    def start_api(self, **settings: Any) -> "Api":
        """As many API processes as this row has, behind one address."""
        ports = [free_port() for _ in range(self.grounds.num_apis)]
        shared = settings if len(ports) == 1 else {"session_secret": SecretStr("canary-session-secret" * 2)} | settings

        def start(port: int, **more: Any) -> nursery.Process:
            return self.start("api", host="127.0.0.1", port=port, **(shared | more))

        processes = [start(port) for port in ports]
        if len(ports) == 1:
            return Api(processes, ports, f"http://127.0.0.1:{ports[0]}", start)
        balancer = Balancer(ports).start()
        self._balancers.append(balancer)
        return Api(processes, ports, f"http://127.0.0.1:{balancer.port}", start)

    def request(self, script: Script, **fields: Any) -> dict[str, Any]:
        """What submits such a job."""
        return {"base_model": BASE_MODEL, "dataset_id": DATASET_ID} | self.trainer.fields(script) | fields

    def submit(self, script: Script, *, must_succeed: bool = True, **fields: Any) -> str:
        job_id = submit(self.backend, **self.request(script, **fields)).id
        self.promise(job_id, script, must_succeed=must_succeed)
        return job_id

    def promise(self, job_id: str, script: Script, *, must_succeed: bool = True) -> None:
        """The submission was acknowledged; from now on a reader follows the curve."""
        self.ledger.scripts[job_id] = script
        if must_succeed:
            self.ledger.must_succeed.add(job_id)
        self.follow(job_id)

    def follow(self, job_id: str) -> None:
        self._readers.append(CurveReader(self, job_id))

    def forget_readers(self) -> None:
        """What they hold is of a database that is no more."""
        for reader in self._readers:
            reader.finish()
        self._readers.clear()

    def let_run(self, seconds: float) -> None:
        """For so long on the toy's scale of time."""
        time.sleep(seconds * self.trainer.pace)

    def running(self, kind: str = "worker") -> list[nursery.Process]:
        return [process for process in self.processes if process.kind == kind and process.is_running]

    def trainers(self) -> list[int]:
        return [pid for worker in self.running() for pid in children_of(worker.pid)]

    def status(self, job_id: str) -> str:
        return view(self.backend, job_id).status.value

    def wait_for_all(self, *wanted: str, seconds: float = 60) -> bool:
        """Until every job is in one of these states; False when time is over first, or when that cannot happen."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            states = self.states()
            if states <= set(wanted or FINAL):
                return True
            if states <= set(FINAL):
                return False
            time.sleep(0.1)
        return False

    def states(self) -> set[str]:
        left = self.ledger.scripts.keys() - self.ledger.deleted
        statement = select(Job.status).where(Job.id.in_(left))
        return {status.value for status in self.backend.database.read(lambda session: session.scalars(statement).all())}

    def num_attempts(self) -> int:
        return sum(len(attempts_of(self.backend, job_id)) for job_id in self.ledger.scripts)

    def finish(self) -> list[str]:
        """Stop everything in order, clean as the next worker would, and check; what was violated."""
        faults = [f"{process.kind} {process.pid} does not stop" for process in self._stop() if process.is_running]
        self._clean_up()
        for reader in self._readers:
            if reader.job_id not in self.ledger.deleted:
                self.ledger.curves[reader.job_id] = reader.finish()
        faults += check(self.backend, self.ledger)
        self.close()
        return faults

    def _stop(self) -> list[nursery.Process]:
        stopped = [process for process in self.processes if process.is_running]
        for process in stopped:
            process.send(18)  # SIGCONT: it may be frozen
            process.send(15)
        deadline = time.monotonic() + 120
        while any(process.is_running for process in stopped) and time.monotonic() < deadline:
            time.sleep(0.02)
        return stopped

    def _clean_up(self) -> None:
        """What killed processes leave, the next one removes: an idle worker comes and goes."""
        if any(process.kind.endswith("worker") and process.code != 0 for process in self.processes):
            WorkerScratch(self.backend.settings.scratch_dir).close()
        self.backend.store.remove_leftovers(0)

    def last_words(self) -> list[str]:
        """Of processes that have ended badly."""
        ended = zip(self.processes, self.logs, strict=True)
        return [
            f"{process.kind} ended with {process.code}: {log.read_text(errors='replace')[-600:]}"
            for process, log in ended
            if process.code not in (None, 0, -9) and log.exists()
        ]

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        for balancer in self._balancers:
            balancer.close()
        for process in self.processes:
            if process.is_running:
                process.kill()
        self.backend.close()
        if self.options.database == "postgresql" and self.options.database_url is None:
            self.grounds.postgresql.drop_database(self.database_name)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Api:
    """One API process, or several behind one address."""

    processes: list[nursery.Process]
    ports: list[int]
    url: str
    start: Callable[..., nursery.Process]
    """Starts one on a port, with the settings of the others."""

    def client(self, **options: Any) -> httpx.Client:
        """Where there are several processes, each request goes to the next one."""
        headers = {"Authorization": "Bearer canary-api-key"}
        limits = httpx.Limits(max_keepalive_connections=20 if len(self.ports) == 1 else 0)
        timeout = options.pop("timeout", 30)
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout, limits=limits, **options)

    def send(self, number: int) -> None:
        for process in self.processes:
            process.send(number)

    def replace_dead(self, seconds: float = 240) -> None:
        """Wait until one has died, and start another in its place."""
        deadline = time.monotonic() + seconds
        while all(process.is_running for process in self.processes):
            assert time.monotonic() < deadline, "no API process has ended"
            time.sleep(0.01)
        for place, process in enumerate(self.processes):
            if not process.is_running:
                self.processes[place] = self.start(self.ports[place])
        self.wait_until_up()

    def roll(self) -> list[int]:
        """Replace one after the other, as a rolling upgrade does; return their exit codes."""
        codes = []
        for place, process in enumerate(self.processes):
            process.send(signal.SIGTERM)
            codes.append(process.wait(120))
            self.processes[place] = self.start(self.ports[place])
            self.wait_until_up()
        return codes

    def wait_until_up(self, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        for place, port in enumerate(self.ports):
            while not _answers(port):
                process = self.processes[place]
                assert time.monotonic() < deadline, "the API does not start"
                assert process.is_running, f"the API ended with {process.code}"
                time.sleep(0.05)


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=30)
    except httpx.TransportError:
        return False
    return True
