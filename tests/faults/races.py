"""Workers that race for one job, and messages that wake them again and again, or lie."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from threading import Barrier

import redis
from faults.grounds import Grounds
from faults.outages import flood
from faults.outcome import Outcome, Row
from faults.trainers import Trainer
from faults.world import COMBINATIONS, Options, World
from servers import free_port, run_redis
from toy_jobs import attempts_of
from toy_trainer import Script

from core.database.engine import open_engine
from core.database.session import Database
from core.services.attempts import lifecycle
from core.services.attempts.claimed_job import ClaimedJob
from core.services.backend import Backend

NUM_RACERS = 6
NUM_RACES = 50
NUM_COSTLY_RACES = 5
NUM_WORKERS = 3


def races(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """Six workers, each with connections of its own, ask at the same moment for the one job there is.

    Jobs of a costly trainer are handed back then, and run.
    """
    database = COMBINATIONS[seed % 2][0]
    world = World(grounds, Options(database, trainer=trainer))
    url = world.backend.database.engine.url.render_as_string(hide_password=False)
    violations: list[str] = []
    held = []
    num_races = NUM_COSTLY_RACES if trainer.is_costly else NUM_RACES
    with ExitStack() as stack:
        racers = [
            replace(world.backend, database=stack.enter_context(closing(Database(open_engine(url)))))
            for _ in range(NUM_RACERS)
        ]
        for _ in range(num_races):
            job_id = world.submit(Script(steps=1), must_succeed=trainer.is_costly)
            claims = race(racers)
            if [claim.job_id for claim in claims] != [job_id]:
                violations.append(f"{len(claims)} claims of one job")
            if trainer.is_costly:
                held.append(claims[0])
            else:
                lifecycle.finish_failed(claims[0], lifecycle.FailureCode.INTERNAL, "The race is over.")
        for claim in held:
            lifecycle.release(claim, lifecycle.AttemptOutcome.DRAINED)
    violations += run_all(world, random.Random(seed)) if held else []
    return Outcome(seed, database, num_races, violations + world.finish())


def race(racers: Sequence[Backend]) -> list[ClaimedJob]:
    barrier = Barrier(len(racers))

    def run(number: int) -> ClaimedJob | None:
        barrier.wait()
        return lifecycle.claim(racers[number], worker=f"racer-{number}", host="h", device="cpu")

    with ThreadPoolExecutor(len(racers)) as pool:
        return [claim for claim in pool.map(run, range(len(racers))) if claim is not None]


def run_all(world: World, chance: random.Random) -> list[str]:
    """Workers that a flood of messages wakes together: no job may be taken twice."""
    port = free_port()
    with run_redis(port):
        url = f"redis://127.0.0.1:{port}/0"
        for _ in range(NUM_WORKERS):
            world.start(broker_url=url)
        while not world.wait_for_all("succeeded", seconds=2) and "failed" not in world.states():
            flood(redis.Redis(port=port), chance)
    counts = [len(attempts_of(world.backend, job_id)) for job_id in world.ledger.scripts]
    return [f"{count - 2} attempts too many" for count in counts if count != 2]


RACES = Row("races", "race of six", 2000, races, num_parallel=2)
