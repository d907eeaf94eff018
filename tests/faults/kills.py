"""`kill -9` of workers and trainers at random moments, and of workers at every failpoint."""

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

from faults.grounds import Grounds
from faults.outcome import Outcome, Row
from faults.trainers import TOY, Trainer
from faults.world import COMBINATIONS, Options, World
from sqlalchemy import select
from toy_jobs import attempts_of
from toy_trainer import Script

from core.database.tables.jobs import Job
from core.services.attempts import lifecycle

NUM_KILLS = 4
MAX_CRASHES_MADE = 1
"""A job that has crashed more often without a new checkpoint is spared: the third time would rightly end it."""


def random_kills(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """Two workers, two jobs, four kills."""
    chance = random.Random(seed)
    database, store = COMBINATIONS[seed % 4]
    world = World(grounds, Options(database, store, trainer))
    names = iter(f"w{number}" for number in range(100))
    workers = {name: world.start(worker_name=name) for name in (next(names), next(names))}
    for _ in range(2):
        script = Script(
            steps=chance.randint(12, 25), step_seconds=chance.uniform(0.02, 0.06), checkpoint_every=chance.randint(2, 6)
        )
        world.submit(script, reuse=chance.random() < 0.5)
    num_kills, recoveries = 0, []
    deadline = time.monotonic() + 240
    while num_kills < NUM_KILLS and time.monotonic() < deadline:
        world.let_run(chance.uniform(0.05, 0.9))
        if world.wait_for_all("succeeded", seconds=0.01):
            break
        name = chance.choice(sorted(workers))
        workers[name].send(signal.SIGSTOP)  # so that it does not take another job between look and kill
        held = job_of(world, name)
        if held is not None and held.crash_count > MAX_CRASHES_MADE:
            workers[name].send(signal.SIGCONT)
            continue
        if chance.random() < 0.4:
            num_kills += kill_trainer(world, workers[name].pid)
            workers[name].send(signal.SIGCONT)
            continue
        killed_at = time.monotonic()
        workers.pop(name).kill()
        num_kills += 1
        fresh = next(names)
        workers[fresh] = world.start(worker_name=fresh)
        if held is not None and chance.random() < 0.5:
            recoveries += wait_for_next_attempt(world, held, killed_at)
    world.wait_for_all("succeeded", seconds=240)
    return Outcome(seed, f"{database} {store}", num_kills, world.finish(), {"recovery_seconds": recoveries})


def job_of(world: World, worker_name: str) -> Job | None:
    statement = select(Job).where(Job.lease_owner == worker_name)
    return world.backend.database.read(lambda session: session.scalar(statement))


def kill_trainer(world: World, worker_pid: int) -> int:
    children = [pid for pid in world.trainers() if parent_of(pid) == worker_pid]
    for pid in children[:1]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return 0
    return len(children[:1])


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def wait_for_next_attempt(world: World, held: Job, since: float) -> list[float]:
    while time.monotonic() - since < 240:
        if len(attempts_of(world.backend, held.id)) > held.attempt:
            return [round(time.monotonic() - since, 3)]
        time.sleep(0.01)
    return []


POINTS = (
    "assignment.written",
    "attempt.closed",
    "attempt.directory_made",
    "begin.committed",
    "begin.in_transaction",
    "checkpoint.committed",
    "checkpoint.in_transaction",
    "checkpoint.set_aside",
    "claim.committed",
    "claim.in_transaction",
    "events.in_transaction",
    "expire.committed",
    "expire.in_transaction",
    "fetch.file_verified",
    "finish.committed",
    "finish.in_transaction",
    "garbage.judged",
    "garbage.object_deleted",
    "heartbeat.in_transaction",
    "points.committed",
    "points.in_transaction",
    "publish.folder_completed",
    "publish.uploaded",
    "requeue.in_transaction",
    "samples.in_transaction",
    "spec.committed",
    "stage.committed",
    "stage.in_transaction",
    "stage_output.committed",
    "stage_output.fetched",
    "stage_output.in_transaction",
    "staging.rows_fetched",
    "store.renamed",
    "store.written",
    "trainer.ended",
    "trainer.message_sent",
    "trainer.started",
    "upload.directory_removed",
    "upload.file_stored",
    "upload.files_stored",
    "upload.manifest_stored",
    "upload.offered",
    "wake.marked",
)
"""Where a worker, its sweeper or its trainer may be killed; those of the API and of the engine come besides."""
OF_LOCAL_STORE = frozenset({"store.renamed", "store.written"})
OF_TRAINERS = frozenset({"trainer.message_sent"})
"""Besides those of their own; their kill leaves the worker alive."""
OF_REFUSALS = frozenset({"checkpoint.set_aside"})
"""Come by when a trainer refuses what it is given, which only the toy does on demand."""
TOUR = Script(steps=8, step_seconds=0.01, checkpoint_every=2, kill_at={"1": 5}, refuse_at={"2": 1})
"""A job that comes by every one of them: it crashes, resumes, refuses a checkpoint."""
Setting = tuple[int, str, bool]
"""Number of the combination, point, and whether its last pass."""


def tour(world: World) -> None:
    """One job whose worker is dead and which later takes over the first stage of the other; one that does all else."""
    world.submit(replace(TOUR, kill_at={}, refuse_at={}))
    ghost = lifecycle.claim(world.backend, worker="ghost", host="h", device="cpu")
    assert ghost is not None
    world.submit(TOUR)


def count_passes(grounds: Grounds, number: int, trainer: Trainer) -> dict[str, int]:
    """How often an undisturbed tour comes by each point; made once."""
    with grounds.counting:
        if (trainer.name, number) not in grounds.passes:
            grounds.passes[trainer.name, number] = undisturbed_passes(grounds, number, trainer)
        return grounds.passes[trainer.name, number]


def undisturbed_passes(grounds: Grounds, number: int, trainer: Trainer) -> dict[str, int]:
    world = World(grounds, Options(*COMBINATIONS[number], trainer))
    notes = world.folder / "passes"
    notes.touch()
    tour(world)
    world.start(strike=f"{trainer.crashes(TOUR, world.folder)};*=note:{notes}")
    assert world.wait_for_all("succeeded", seconds=240)
    time.sleep(2)  # the sweeper collects
    names = notes.read_text().split()
    violations = world.finish()
    assert not violations, violations
    return {name: names.count(name) for name in sorted(set(names))}


def kill_at(grounds: Grounds, setting: Setting, passage: int, trainer: Trainer) -> tuple[bool, list[str]]:
    """Whether that pass of the point was reached, and what was violated."""
    number, point, _ = setting
    world = World(grounds, Options(*COMBINATIONS[number], trainer))
    tour(world)
    mark = world.folder / "has-struck"
    armed = world.start(strike=f"{trainer.crashes(TOUR, world.folder)};{point}=kill:{mark}@{passage}")
    deadline = time.monotonic() + 240
    while not mark.exists() and time.monotonic() < deadline:
        if world.wait_for_all("succeeded", seconds=0.05):
            deadline = min(deadline, time.monotonic() + (20 if passage == 1 else 2))  # the sweeper collects
    if mark.exists() and point not in {*OF_TRAINERS, *trainer.points}:
        armed.wait()
        world.start()
    world.wait_for_all("succeeded", seconds=240)
    return mark.exists(), world.finish()


def failpoint_kills(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """The seed names database and store, point, and first or last pass."""
    settings = settings_of(trainer)
    number, point, is_last = settings[seed]
    passage = count_passes(grounds, number, trainer).get(point, 1) if is_last else 1
    setting = f"{' '.join(COMBINATIONS[number])} {point}@{passage}"
    if is_last and passage == 1 and (number, point, False) in settings:
        return Outcome(seed, f"{setting} (its first pass)", 0, [])
    was_reached, violations = kill_at(grounds, settings[seed], passage, trainer)
    while not was_reached and passage > 1 and not violations:  # fewer passes than in the undisturbed run
        passage = passage * 2 // 3
        was_reached, violations = kill_at(grounds, settings[seed], passage, trainer)
    if not was_reached:
        violations.append(f"{point}: pass {passage} was not reached")
    return Outcome(seed, setting, 1, violations)


def settings_of(trainer: Trainer) -> list[Setting]:
    """All there are; of a costly trainer each point once, and all else in turn."""
    if not trainer.is_costly:
        return [
            (number, point, is_last)
            for number, (_, store) in enumerate(COMBINATIONS)
            for point in POINTS
            for is_last in (False, True)
            if store == "local" or point not in OF_LOCAL_STORE
        ]
    points = sorted({*POINTS, *trainer.points} - OF_REFUSALS)
    local = [number for number, (_, store) in enumerate(COMBINATIONS) if store == "local"]
    settings = []
    for place, point in enumerate(points[::2] + points[1::2]):
        number = local[place % len(local)] if point in OF_LOCAL_STORE else place % len(COMBINATIONS)
        settings.append((number, point, place // len(COMBINATIONS) % 2 == 1))
    return settings


SETTINGS = settings_of(TOY)
KILLS = Row("kills", "kill -9", 200, random_kills)
FAILPOINTS = Row("failpoints", "point and pass", len(SETTINGS), failpoint_kills, num_settings=len(SETTINGS))
