"""Workers that are frozen past their lease and wake while another has the job; and workers that race for one job."""

import os
import random
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from threading import Barrier

from faults.nursery import Process
from faults.outcome import Outcome, Row
from faults.world import COMBINATIONS, Grounds, Options, World
from toy_jobs import attempts_of, children_of, events, process_state, wait_for
from toy_trainer import Script

from core.database.engine import open_engine
from core.database.session import Database
from core.services import attempts

NUM_RACERS = 6
NUM_RACES = 50


def frozen_worker(grounds: Grounds, seed: int) -> Outcome:
    """Frozen at a random moment, with its trainer or without; woken at a random moment after it was replaced."""
    chance = random.Random(seed)
    database, store = COMBINATIONS[seed % 4]
    world = World(grounds, Options(database, store))
    script = Script(steps=chance.randint(15, 30), step_seconds=0.04, checkpoint_every=chance.randint(2, 8))
    job_id = world.submit(script)
    zombie = world.start(worker_name="zombie")
    wait_for(lambda: attempts_of(world.backend, job_id), "the first attempt", 240)
    time.sleep(chance.uniform(0, 2.5))
    trainers = children_of(zombie.pid)
    freeze(world, zombie)
    if chance.random() < 0.5:
        for pid in trainers:
            signal_if_there(pid, signal.SIGSTOP)
    world.start(worker_name="other")
    is_over = world.status(job_id) == "succeeded"
    if not is_over:
        wait_for(lambda: len(attempts_of(world.backend, job_id)) > 1, "the next attempt", 240)
        time.sleep(chance.uniform(0, 2))
    for pid in (zombie.pid, *trainers):
        signal_if_there(pid, signal.SIGCONT)
    world.wait_for_all("succeeded", seconds=240)
    violations = []
    if not is_over:
        late = [e.kind for e in events(world.backend, job_id) if e.attempt > 1 and e.actor == "zombie"]
        again = [a.attempt for a in attempts_of(world.backend, job_id) if a.worker == "zombie"][1:]
        violations += [f"the zombie wrote {late}"] if late and not again else []
    return Outcome(seed, f"{database} {store}", int(not is_over), violations + world.finish())


def freeze(world: World, worker: Process) -> None:
    """Outside of a transaction on SQLite, where it would lock everybody out, which no real machine does."""
    path = world.backend.database.engine.url.database
    for _ in range(100):
        worker.send(signal.SIGSTOP)
        wait_for(lambda: process_state(worker.pid) in "TZX", "the process to stop")
        if world.backend.database.is_postgresql or path is None:
            return
        try:
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            return
        except sqlite3.OperationalError:
            worker.send(signal.SIGCONT)
            time.sleep(0.01)
    raise AssertionError("the worker was always in a transaction")


def signal_if_there(pid: int, number: signal.Signals) -> None:
    if Path(f"/proc/{pid}").exists():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def races(grounds: Grounds, seed: int) -> Outcome:
    """Six workers, each with connections of its own, ask at the same moment for the one job there is."""
    database = COMBINATIONS[seed % 2][0]
    world = World(grounds, Options(database))
    url = world.backend.database.engine.url.render_as_string(hide_password=False)
    violations: list[str] = []
    with ExitStack() as stack:
        racers = [
            replace(world.backend, database=stack.enter_context(closing(Database(open_engine(url)))))
            for _ in range(NUM_RACERS)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(NUM_RACERS))
        for _ in range(NUM_RACES):
            job_id = world.submit(Script(steps=1), must_succeed=False)
            barrier = Barrier(NUM_RACERS)

            def race(number: int, barrier: Barrier = barrier) -> attempts.Claim | None:
                barrier.wait()
                return attempts.claim(racers[number], worker=f"racer-{number}", host="h", device="cpu")

            claims = [claim for claim in pool.map(race, range(NUM_RACERS)) if claim is not None]
            if [claim.job_id for claim in claims] != [job_id]:
                violations.append(f"{len(claims)} claims of one job")
            attempts.finish_failed(racers[0], claims[0], attempts.FailureCode.INTERNAL, "The race is over.")
    return Outcome(seed, database, NUM_RACES, violations + world.finish())


ZOMBIES = Row("zombies", "frozen worker", 100, frozen_worker)
RACES = Row("races", "race of six", 2000, races, num_parallel=2)
