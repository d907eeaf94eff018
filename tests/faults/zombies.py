"""Workers that are frozen past their lease and wake while another has the job."""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from backends import PROJECT
from faults.grounds import Grounds
from faults.kills import MAX_CRASHES_MADE
from faults.nursery import Process
from faults.outcome import Outcome, Row
from faults.trainers import Trainer
from faults.world import COMBINATIONS, FINAL, Options, World
from toy_jobs import attempts_of, children_of, events, process_state, wait_for
from toy_trainer import Script

from core.database.repositories.jobs import find_job

NUM_COSTLY_ZOMBIES = 4
"""Upon one job."""


def frozen_worker(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """Whoever has the job is frozen at a random moment and woken once it was replaced; some times, where costly."""
    chance = random.Random(seed)
    database, store = COMBINATIONS[seed % 4]
    world = World(grounds, Options(database, store, trainer))
    script = Script(steps=chance.randint(15, 30), step_seconds=0.04, checkpoint_every=chance.randint(2, 8))
    job_id = world.submit(script)
    workers = {"zombie": world.start(worker_name="zombie")}
    zombies = []
    for _ in range(NUM_COSTLY_ZOMBIES if trainer.is_costly else 1):
        wait_for(lambda: holder_of(world, job_id) or world.status(job_id) in FINAL, "a worker to have the job", 240)
        world.let_run(chance.uniform(0, 2.5))
        name = holder_of(world, job_id)
        if name is not None and freeze_and_wake(world, job_id, workers, name, chance):
            zombies.append(name)
    world.wait_for_all("succeeded", seconds=240)
    violations = late_writes(world, job_id, zombies)
    return Outcome(seed, f"{database} {store}", len(zombies), violations + world.finish())


def holder_of(world: World, job_id: str) -> str | None:
    """The worker that has the job, unless the job has crashed so often that it must not lose it."""
    job = world.backend.database.read(lambda session: find_job(session, PROJECT, job_id))
    return job.lease_owner if job is not None and job.crash_count <= MAX_CRASHES_MADE else None


def freeze_and_wake(world: World, job_id: str, workers: dict[str, Process], name: str, chance: random.Random) -> bool:
    """With its trainer or without; woken at a random moment after it was replaced. False if the job was over."""
    zombie, successor = workers[name], f"other-{len(workers)}"
    num_attempts = len(attempts_of(world.backend, job_id))
    trainers = children_of(zombie.pid)
    freeze(world, zombie)
    if chance.random() < 0.5:
        for pid in trainers:
            signal_if_there(pid, signal.SIGSTOP)
    workers[successor] = world.start(worker_name=successor)
    is_over = world.status(job_id) == "succeeded"
    if not is_over:
        wait_for(lambda: len(attempts_of(world.backend, job_id)) > num_attempts, "the next attempt", 240)
        world.let_run(chance.uniform(0, 2))
    for pid in (zombie.pid, *trainers):
        signal_if_there(pid, signal.SIGCONT)
    return not is_over


def late_writes(world: World, job_id: str, zombies: Collection[str]) -> list[str]:
    """Events that a worker has added to the attempt of another one."""
    workers = {attempt.attempt: attempt.worker for attempt in attempts_of(world.backend, job_id)}
    return [
        f"{event.actor} wrote {event.kind} to attempt {event.attempt}"
        for event in events(world.backend, job_id)
        if event.actor in zombies and workers.get(event.attempt, event.actor) != event.actor
    ]


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


ZOMBIES = Row("zombies", "frozen worker", 100, frozen_worker)
