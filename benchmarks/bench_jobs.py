"""The queue and its faults in figures: claims from a long queue, recovery after a kill, from cancel to stop.

    PYTHONPATH=tests:tests/support \
        python benchmarks/bench_jobs.py [--queued 10000] [--claims 400] [--rounds 10] [--output FILE]

Needs PostgreSQL's programs and Redis or Valkey. Claims run against SQLite and PostgreSQL, both of which wait for the
disk, with one heartbeat between two of them. Kills and cancels run whole worker processes with a toy trainer that takes
a step every 50 ms: one after the other at the times of the tests (lease 1.5 s), all at once at the default times, where
they do little but wait (a recovery takes a minute). Prints one JSON object.
"""

import argparse
import json
import os
import platform
import signal
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from backends import PROJECT, add_dataset, make_backend, submit
from faults.world import TIMES, Grounds, Options, World
from servers import PostgresServer, free_port, run_postgresql, run_redis
from sqlalchemy import insert, select, text
from toy_jobs import attempts_of, wait_for, wait_for_step
from toy_trainer import Script

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.session import Database
from core.database.tables.jobs import Job
from core.services.access import projects
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.ids import new_id
from core.services.jobs import jobs, steering

DEFAULT_TIMES = {"lease_seconds": 60.0, "heartbeat_seconds": 5.0, "sweep_seconds": 5.0, "poll_seconds": 30.0}
CLAIM_RUNS = (
    ("sqlite", "sqlite", 1, False),
    ("sqlite_100_projects", "sqlite", 100, False),
    ("postgresql", "postgresql", 1, True),
    ("postgresql_100_projects", "postgresql", 100, True),
    ("postgresql_without_statistics", "postgresql", 1, False),
    ("postgresql_100_projects_without_statistics", "postgresql", 100, False),
)
"""Name, database, over how many projects the queue is spread, with statistics of the new rows or not."""
START_SECONDS = 2
"""Until a forked worker is at work."""
LONG = Script(steps=4000, step_seconds=0.05, checkpoint_every=20)


def summary(values: Sequence[float], unit: float = 1.0) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    named = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(values)}
    return {name: round(value * unit, 3) for name, value in named.items()} | {"num": len(values)}


@contextmanager
def migrated(server: PostgresServer, kind: str, folder: Path) -> Iterator[Backend]:
    """An empty deployment, as users have it: without the triggers that the fault runs put into their databases."""
    url = f"sqlite:///{folder}/preftune.db" if kind == "sqlite" else server.create_database(new_id("d").lower())
    upgrade(url)
    database = Database(open_engine(url))
    yield make_backend(folder, database)
    database.close()


def fill(backend: Backend, num_queued: int, num_projects: int) -> None:
    """Copies of one submitted job, dealt to the projects in turn."""
    add_dataset(backend)
    first = submit(backend).id
    columns = [column.name for column in Job.__table__.columns]
    names = [PROJECT, *(f"project-{number}" for number in range(1, num_projects))]
    for name in names[1:]:
        projects.create(backend, name)

    def work(session: Any) -> None:
        row = dict(session.execute(select(Job.__table__).where(Job.__table__.c.id == first)).mappings().one())
        copy = {name: row[name] for name in columns}
        rows = [
            copy | {"id": new_id("job"), "project_id": names[number % num_projects]} for number in range(1, num_queued)
        ]
        for start in range(0, len(rows), 500):
            session.execute(insert(Job.__table__), rows[start : start + 500])

    backend.database.write(work)


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def claims(backend: Backend, num_queued: int, num_projects: int, num_claims: int, *, analyze: bool) -> dict[str, Any]:
    """`analyze`: as PostgreSQL does by itself within a minute of so many new rows; without it, it plans blindly."""
    fill(backend, num_queued, num_projects)
    if analyze:
        backend.database.write(lambda session: session.execute(text("ANALYZE jobs")))
    taken, beaten = [], []
    for _ in range(num_claims):
        start = time.perf_counter()
        claim = lifecycle.claim(backend, worker="w", host="h", device="cpu")
        taken.append(time.perf_counter() - start)
        assert claim is not None
        beaten.append(timed(partial(lifecycle.heartbeat, claim)))
    page = jobs.list_page(backend, PROJECT).data
    least = text("UPDATE sweeper_lock SET owner = owner")
    return {
        "claim_ms": summary(taken, 1000),
        "heartbeat_ms": summary(beaten, 1000),
        "list_page_of_20_with_queue_positions_ms": summary(
            [timed(partial(jobs.list_page, backend, PROJECT)) for _ in range(30)], 1000
        ),
        "job_with_queue_position_ms": summary(
            [timed(partial(jobs.get, backend, PROJECT, page[0].id)) for _ in range(30)], 1000
        ),
        "least_write_ms": summary(
            [timed(partial(backend.database.write, lambda session: session.execute(least))) for _ in range(200)], 1000
        ),
    }


def claim_runs(num_queued: int, num_claims: int) -> dict[str, Any]:
    found = {}
    with run_postgresql(fsync="on", full_page_writes="on", synchronous_commit="on") as server:
        for name, kind, num_projects, analyze in CLAIM_RUNS:
            with TemporaryDirectory() as folder, migrated(server, kind, Path(folder)) as backend:
                found[name] = claims(backend, num_queued, num_projects, num_claims, analyze=analyze)
    return found


def recover(grounds: Grounds, times: dict[str, Any], number: int, broker_url: str) -> float:
    """From `kill -9` of the worker to the start of the next attempt, with a second worker idle; alternately on both."""
    settings = times | {"broker_url": broker_url}
    world = World(grounds, Options("postgresql" if number % 2 else "sqlite", settings=settings))
    job_id = world.submit(LONG, must_succeed=False)
    worker = world.start()
    wait_for_step(world.backend, job_id, "sft", LONG.checkpoint_every + 3)
    world.start()
    time.sleep(times["heartbeat_seconds"] + START_SECONDS)  # the other one sees its lease
    start = time.monotonic()
    worker.kill()
    limit = 4 * times["lease_seconds"] + 30
    wait_for(lambda: len(attempts_of(world.backend, job_id)) == 2, "the next attempt", limit)
    seconds = time.monotonic() - start
    world.close()
    return seconds


def stop(grounds: Grounds, times: dict[str, Any], number: int, broker_url: str) -> float:
    """From the acknowledged cancel of a running job to its being cancelled, trainer gone."""
    settings = times | {"broker_url": broker_url}
    world = World(grounds, Options("postgresql" if number % 2 else "sqlite", settings=settings))
    world.start()
    job_id = world.submit(LONG, must_succeed=False)
    wait_for_step(world.backend, job_id, "sft", 3 + 7 * number)  # at another moment between two heartbeats
    steering.cancel(world.backend, PROJECT, job_id)
    start = time.monotonic()
    wait_for(lambda: world.status(job_id) == "cancelled", "the job to stop", 60)
    seconds = time.monotonic() - start
    world.close()
    return seconds


Round = Callable[[Grounds, dict[str, Any], int, str], float]


def at_times(grounds: Grounds, times: dict[str, Any], rounds: int, num_parallel: int) -> dict[str, Any]:
    """Each round has a broker of its own, since a wake-up goes to whoever listens."""

    def run(round_: Round, number: int) -> float:
        port = free_port()
        with run_redis(port):
            return round_(grounds, times, number, f"redis://127.0.0.1:{port}/0")

    with ThreadPoolExecutor(num_parallel) as pool:
        recovered = list(pool.map(partial(run, recover), range(rounds)))
        stopped = list(pool.map(partial(run, stop), range(rounds)))
    return {
        "times": times,
        "rounds_at_once": num_parallel,
        "recovery_after_kill_seconds": summary(recovered),
        "cancel_to_stop_seconds": summary(stopped),
    }


def server_version(url: str) -> str:
    with psycopg.connect(url) as connection:
        return connection.info.parameter_status("server_version") or "unknown"


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--claims", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--claims-only", action="store_true")
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    if chosen.rounds < 2:
        parser.error("--rounds: at least 2")
    short_times = {name: TIMES[name] for name in DEFAULT_TIMES}
    result: dict[str, Any] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
        "load_before": [round(value, 1) for value in os.getloadavg()],
        "num_queued": chosen.queued,
    }
    with Grounds.open() as grounds:
        result |= claim_runs(chosen.queued, chosen.claims)
        result["versions"]["postgresql"] = server_version(grounds.postgresql.url("postgres"))
        if chosen.claims_only:
            return show(result, chosen.output)
        result["short_times"] = at_times(grounds, short_times, chosen.rounds, 1)
        result["default_times"] = at_times(grounds, DEFAULT_TIMES, chosen.rounds, chosen.rounds)
    show(result, chosen.output)


def show(result: dict[str, Any], output: Path | None) -> None:
    content = json.dumps(result, indent=1)
    print(content)
    if output is not None:
        output.write_text(content + "\n")


if __name__ == "__main__":
    main()
