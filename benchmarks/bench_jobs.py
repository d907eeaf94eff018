"""The queue and its faults in figures: claims from a long queue, recovery after a kill, from cancel to stop.

    PYTHONPATH=tests python benchmarks/bench_jobs.py [--queued 10000] [--claims 400] [--rounds 10] [--output FILE]

Needs PostgreSQL's programs and Redis or Valkey. Claims run against SQLite and PostgreSQL, with one heartbeat between
two of them. Kills and cancels run whole worker processes with a toy trainer that takes a step every 50 ms: one after
the other at the times of the tests (lease 1.5 s), all at once at the default times, where they do little but wait (a
recovery takes a minute). Prints one JSON object.
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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from backends import PROJECT, add_dataset, submit
from faults.world import TIMES, Grounds, Options, World
from servers import free_port, run_redis
from sqlalchemy import insert, select, text
from toy_jobs import attempts_of, wait_for, wait_for_step
from toy_trainer import Script

from core.database.tables.jobs import Job
from core.services import attempts, jobs
from core.services.ids import new_id

DEFAULT_TIMES = {"lease_seconds": 60.0, "heartbeat_seconds": 5.0, "sweep_seconds": 5.0, "poll_seconds": 30.0}
CLAIM_RUNS = (
    ("sqlite", "sqlite", False),
    ("postgresql", "postgresql", True),
    ("postgresql_without_statistics", "postgresql", False),
)
START_SECONDS = 2
"""Until a forked worker is at work."""
LONG = Script(steps=4000, step_seconds=0.05, checkpoint_every=20)


def summary(values: Sequence[float], unit: float = 1.0) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    named = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(values)}
    return {name: round(value * unit, 3) for name, value in named.items()} | {"num": len(values)}


def fill(world: World, num_queued: int) -> None:
    """Copies of one submitted job."""
    add_dataset(world.backend)
    first = submit(world.backend).id
    columns = [column.name for column in Job.__table__.columns]

    def work(session: Any) -> None:
        row = dict(session.execute(select(Job.__table__).where(Job.__table__.c.id == first)).mappings().one())
        rows = [{name: row[name] for name in columns} | {"id": new_id("job")} for _ in range(num_queued - 1)]
        for start in range(0, len(rows), 500):
            session.execute(insert(Job.__table__), rows[start : start + 500])

    world.backend.database.write(work)


def claims(grounds: Grounds, database: Any, num_queued: int, num_claims: int, *, analyze: bool) -> dict[str, Any]:
    """`analyze`: as PostgreSQL does by itself within a minute of so many new rows; without it, it plans blindly."""
    world = World(grounds, Options(database))
    fill(world, num_queued)
    if analyze:
        world.backend.database.write(lambda session: session.execute(text("ANALYZE jobs")))
    taken, beaten, looked = [], [], []
    for _ in range(num_claims):
        start = time.perf_counter()
        claim = attempts.claim(world.backend, worker="w", host="h", device="cpu")
        taken.append(time.perf_counter() - start)
        assert claim is not None
        start = time.perf_counter()
        attempts.heartbeat(world.backend, claim)
        beaten.append(time.perf_counter() - start)
    for _ in range(30):
        start = time.perf_counter()
        jobs.list_page(world.backend, PROJECT)
        looked.append(time.perf_counter() - start)
    world.close()
    return {
        "claim_ms": summary(taken, 1000),
        "heartbeat_ms": summary(beaten, 1000),
        "list_page_of_20_with_queue_positions_ms": summary(looked, 1000),
    }


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
    jobs.cancel(world.backend, PROJECT, job_id)
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
        for name, database, analyze in CLAIM_RUNS:
            result[name] = claims(grounds, database, chosen.queued, chosen.claims, analyze=analyze)
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
