"""Databases that go back in time under live workers: put back to an earlier copy, or a lagging replica promoted.

Acknowledged work after the copy is lost with the database that had it; what must hold is that the database which is
left has one publication of each job, by the attempt that it names, and a whole curve.
"""

import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import psycopg
from faults.checker import named_trees
from faults.grounds import Grounds
from faults.outages import OwnServerWorld
from faults.outcome import Outcome, Row
from faults.proxy import FaultProxy
from faults.trainers import Trainer
from faults.world import FINAL, Options, World
from faults.zombies import freeze, holder_of, late_writes, signal_if_there
from servers import PostgresServer
from standby import has_caught_up, promote, run_copy
from toy_jobs import attempts_of, children_of, wait_for
from toy_trainer import Script

from core.database.engine import open_engine
from core.database.session import Database
from core.domain.errors import Unavailable
from core.storage import keys

NUM_RUNS = 50
T = TypeVar("T")


@dataclass(frozen=True)
class GoingBack:
    """How a world's database goes back."""

    keep: Callable[[], None]
    """From here on everything will be lost."""
    put_back: Callable[[], None]
    settle: Callable[[], None] = lambda: None
    """Wait until what was acknowledged by now will not be lost."""
    zombie_url: str | None = None
    """Of the database that the zombie goes on with, where that is not the one which all others use."""


def go_back(world: World, chance: random.Random, how: GoingBack) -> tuple[int, list[str]]:
    """One job whose worker lives through it, frozen or not; (how often the job went back, violations)."""
    script = Script(steps=chance.randint(15, 30), step_seconds=0.04, checkpoint_every=chance.randint(2, 8))
    job_id = world.submit(script, reuse=False)
    how.settle()
    is_before_claim = chance.random() < 0.5
    if is_before_claim:
        how.keep()
    own = {} if how.zombie_url is None else {"database_url": how.zombie_url}
    zombie = world.start(worker_name="zombie", **own)
    if not is_before_claim:
        wait_for(lambda: ask(lambda: holder_of(world, job_id)), "the worker to have the job", 240)
        world.let_run(chance.uniform(0, 1.2))
        how.keep()
    else:
        wait_for(lambda: ask(lambda: attempts_of(world.backend, job_id)), "the worker to have the job", 240)
    world.let_run(chance.uniform(0.1, 1.5))
    trainers = children_of(zombie.pid)
    if chance.random() < 0.5:
        freeze(world, zombie)
        for pid in trainers if chance.random() < 0.5 else ():
            signal_if_there(pid, signal.SIGSTOP)
    lost = ask(lambda: attempts_of(world.backend, job_id))[-1].claim_token
    ask(world.forget_readers)
    how.put_back()
    has_gone_back = ask(lambda: world.status(job_id)) not in FINAL
    world.follow(job_id)
    world.start(worker_name="successor")
    wait_for(lambda: ask(lambda: is_over_or_taken_again(world, job_id, lost)), "the next attempt", 240)
    world.let_run(chance.uniform(0, 1))
    for pid in (zombie.pid, *trainers):
        signal_if_there(pid, signal.SIGCONT)
    ask(lambda: world.wait_for_all("succeeded", seconds=240))
    violations = late_writes(world, job_id, ("zombie", "successor")) + foreign_trees(world, job_id)
    return int(has_gone_back), violations


def ask(look: Callable[[], T]) -> T:
    """Again while the database is away, or a busy machine keeps it from answering in time."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return look()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def is_over_or_taken_again(world: World, job_id: str, lost: str | None) -> bool:
    attempts = attempts_of(world.backend, job_id)
    return world.status(job_id) in FINAL or (bool(attempts) and attempts[-1].claim_token != lost)


def foreign_trees(world: World, job_id: str) -> list[str]:
    """Objects that a row names although another claim than its attempt's has written them: a second publication."""
    tokens = {attempt.attempt: attempt.claim_token or "" for attempt in attempts_of(world.backend, job_id)}
    owners = [keys.owner_of(prefix) for prefix, _ in named_trees(world.backend)]
    return [
        f"a row of attempt {owner.attempt} names what claim {owner.token} has written"
        for owner in owners
        if owner.job_id == job_id and not (owner.token and tokens.get(owner.attempt, "").endswith(owner.token))
    ]


def put_back_sqlite(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """A SQLite file, overwritten in place or replaced by an earlier copy of itself."""
    chance = random.Random(seed)
    kind, store = (("in-place", "local"), ("replaced", "local"), ("in-place", "s3"), ("replaced", "s3"))[seed % 4]
    world = World(grounds, Options("sqlite", store, trainer))  # type: ignore[arg-type]
    path = Path(str(world.backend.database.engine.url.database))
    copy = path.with_suffix(".copy")

    def keep() -> None:
        with closing(sqlite3.connect(path, timeout=60)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)

    def put_back() -> None:
        if kind == "in-place":
            with closing(sqlite3.connect(copy)) as source, closing(sqlite3.connect(path, timeout=60)) as target:
                source.backup(target)
            return
        world.backend.database.close()
        for leftover in path.parent.glob(f"{path.name}-*"):
            leftover.unlink(missing_ok=True)
        shutil.copy(copy, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
        world.backend = replace(world.backend, database=Database(open_engine(f"sqlite:///{path}")))

    num, violations = go_back(world, chance, GoingBack(keep, put_back))
    return Outcome(seed, f"{kind} {store}", num, violations + world.finish())


def put_back_postgresql(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """A database that is dropped and made anew of an earlier copy."""
    chance = random.Random(seed)
    world = World(grounds, Options("postgresql", ("local", "s3")[seed % 2], trainer))  # type: ignore[arg-type]
    server, name = grounds.postgresql, world.database_name

    def alone(*statements: str) -> None:
        """With everybody cut off meanwhile, as `CREATE DATABASE … TEMPLATE` and `DROP DATABASE` want it."""
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")  # type: ignore[arg-type]
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")  # type: ignore[arg-type]

    def keep() -> None:
        alone(f"CREATE DATABASE {name}_copy TEMPLATE {name}")

    def put_back() -> None:
        alone(f"DROP DATABASE {name}", f"ALTER DATABASE {name}_copy RENAME TO {name}")

    num, violations = go_back(world, chance, GoingBack(keep, put_back))
    return Outcome(seed, world.options.store, num, violations + world.finish())


def promoted_replica(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """A streaming replica that lags is promoted; the primary is dead, cut off from all, or alive with the zombie."""
    chance = random.Random(seed)
    kind = ("dead", "cut-off", "split")[seed % 3]
    with ExitStack() as stack:
        primary = stack.enter_context(run_copy(grounds.postgresql))
        link = stack.enter_context(FaultProxy(primary.port))
        standby = stack.enter_context(run_copy(primary, follow=link.port))
        front = stack.enter_context(FaultProxy(primary.port))
        url = f"postgresql://postgres@127.0.0.1:{front.port}/template_faults"
        options = Options("postgresql", ("local", "s3")[seed % 2], trainer, database_url=url)  # type: ignore[arg-type]
        world = OwnServerWorld(grounds, options, url)

        def settle() -> None:
            wait_for(lambda: has_caught_up(primary, standby), "the replica to catch up")

        def keep() -> None:
            link.is_refusing = True
            link.reset()

        def put_back() -> None:
            fail_over(front, primary, standby, is_dead=kind == "dead")

        zombie_url = primary.url("template_faults") if kind == "split" else None
        num, violations = go_back(world, chance, GoingBack(keep, put_back, settle, zombie_url))
        violations += world.finish()
    return Outcome(seed, kind, num, violations)


def fail_over(front: FaultProxy, primary: PostgresServer, standby: PostgresServer, *, is_dead: bool) -> None:
    front.is_refusing = True
    front.reset()
    if is_dead:
        primary.stop()
    promote(standby)
    front.target_port = standby.port
    front.is_refusing = False


PUT_BACK_SQLITE = Row("put-back-sqlite", "going back", NUM_RUNS, put_back_sqlite)
PUT_BACK_POSTGRESQL = Row("put-back-postgresql", "going back", NUM_RUNS, put_back_postgresql)
PROMOTED = Row("promoted-replica", "going back", NUM_RUNS, promoted_replica)
