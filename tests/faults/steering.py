"""What users and operators do: storms of cancel, pause, resume, delete, retry; SIGTERM to workers and APIs."""

import random
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from backends import PROJECT
from faults.grounds import Grounds
from faults.outcome import Outcome, Row
from faults.trainers import Trainer
from faults.world import COMBINATIONS, FINAL, Options, World
from toy_jobs import attempts_of, events, view, wait_for
from toy_trainer import Script

from core.services.jobs import steering

NUM_OPERATIONS = 50
NUM_USERS = 4
ALLOWED = {200, 201, 202, 204, 404, 409}


def storm(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """Four users at once upon a few jobs that two workers run; then all is let go to its end."""
    chance = random.Random(seed)
    database, store = COMBINATIONS[seed % 4]
    world = World(grounds, Options(database, store, trainer))
    api = world.start_api()
    for _ in range(2):
        world.start()
    script = Script(steps=15, step_seconds=0.04, checkpoint_every=3)
    job_ids = [world.submit(script, must_succeed=False, reuse=False) for _ in range(3)]
    api.wait_until_up()
    violations: list[str] = []

    def user(number: int) -> None:
        luck = random.Random(seed * 100 + number)
        with api.client() as client:
            for _ in range(NUM_OPERATIONS // NUM_USERS + 1):
                world.let_run(luck.uniform(0, 0.25))
                violations.extend(operate(world, client, luck, job_ids, script))

    with ThreadPoolExecutor(NUM_USERS) as pool:
        list(pool.map(user, range(NUM_USERS)))
    violations += settle(world, chance)
    num_operations = NUM_USERS * (NUM_OPERATIONS // NUM_USERS + 1)
    return Outcome(seed, f"{database} {store}", num_operations, violations + world.finish())


def operate(world: World, client: httpx.Client, luck: random.Random, job_ids: list[str], script: Script) -> list[str]:
    """One request; what about its answer is wrong."""
    job_id = luck.choice(job_ids)
    what = luck.choices(("pause", "resume", "cancel", "save", "delete", "retry", "submit"), (5, 6, 2, 1, 2, 2, 1))[0]
    if what == "submit":
        job_ids.append(world.submit(script, must_succeed=False, reuse=False))
        return []
    if what == "delete":
        answer = client.delete(f"/jobs/{job_id}")
    elif what == "save":
        answer = client.post(f"/jobs/{job_id}/cancel", params={"save": "true"})
    else:
        answer = client.post(f"/jobs/{job_id}/{what}")
    if answer.status_code == 201:
        new_id = answer.json()["id"]
        world.promise(new_id, script, must_succeed=False)
        job_ids.append(new_id)
    elif what == "delete" and answer.status_code == 204:
        world.ledger.deleted.add(job_id)
    if answer.status_code not in ALLOWED:
        return [f"{what}: {answer.status_code} {answer.text[:300]}"]
    return []


def settle(world: World, chance: random.Random) -> list[str]:
    """Every wish comes true: paused jobs are paused or go on, the others end."""
    left = sorted(world.ledger.scripts.keys() - world.ledger.deleted)
    wait_for(lambda: all(is_settled(view(world.backend, job_id)) for job_id in left), "the wishes to come true", 240)
    for job_id in left:
        if world.status(job_id) == "paused" and chance.random() < 0.7:
            steering.resume(world.backend, PROJECT, job_id)
            world.ledger.must_succeed.add(job_id)
    return [] if world.wait_for_all(*FINAL, "paused", seconds=240) else ["jobs that never end"]


def is_settled(job: Any) -> bool:
    if job.desired.value == "cancel":
        return job.status.value in FINAL
    return job.status.value in FINAL or (job.desired.value == "pause") == (job.status.value == "paused")


def drain(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """Workers and API get SIGTERM one after the other, each with a successor, until the jobs are done."""
    chance = random.Random(seed)
    database, store = COMBINATIONS[seed % 4]
    world = World(grounds, Options(database, store, trainer))
    workers = [world.start() for _ in range(2)]
    api = world.start_api()
    script = Script(steps=chance.randint(15, 25), step_seconds=0.04, checkpoint_every=1000)
    for _ in range(2):
        world.submit(script, reuse=False)
    api.wait_until_up()
    violations, num_drained = [], 0
    for number in range(3):
        world.let_run(chance.uniform(0.2, 1.5))
        place = number % 2
        num_drained += 1
        workers[place].send(signal.SIGTERM)
        old, workers[place] = workers[place], world.start()
        if (code := old.wait(120)) != 0:
            violations.append(f"a worker ended with {code}")
        if number == 1:
            codes = api.roll()
            num_drained += len(codes)
            violations += [f"the API ended with {code}" for code in codes if code]
    world.wait_for_all("succeeded", seconds=240)
    for job_id in world.ledger.scripts:
        violations += repeated(world, job_id)
    return Outcome(seed, f"{database} {store}", num_drained, violations + world.finish())


def repeated(world: World, job_id: str) -> list[str]:
    """At most one step may be done twice, and nothing counts as a crash."""
    outcomes = {attempt.outcome.value for attempt in attempts_of(world.backend, job_id) if attempt.outcome}
    faults = [f"{job_id}: {outcome}" for outcome in outcomes - {"drained", "succeeded"}]
    rewound = [e.data.get("num_rewound_points", 0) for e in events(world.backend, job_id) if e.kind == "resumed"]
    return faults + [f"{job_id}: {number} steps repeated" for number in rewound if number > 1]


STORMS = Row("storms", "operation", 2000, storm, num_parallel=3)
DRAINS = Row("drains", "process drained", 50, drain, num_parallel=3)
