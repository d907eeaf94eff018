"""Full disks: of the worker while it stages, trains or publishes; of a local store; of SQLite."""

import random
import subprocess
import time
from pathlib import Path

from faults.grounds import Grounds
from faults.outcome import Outcome, Row
from faults.trainers import Trainer
from faults.world import Options, World
from toy_jobs import view
from toy_trainer import Script

SCRIPT = Script(steps=12, step_seconds=0.03, checkpoint_every=2)
WORKER_POINTS = ("attempt.directory_made", "staging.rows_fetched", "assignment.written", "publish.folder_completed")
STORE_POINTS = ("store.written",)
KINDS = ("worker for a while", "worker for good", "store for a while", "SQLite", "scratch is tiny")


def full_disk(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """It either comes through or fails with `disk_full`; nothing is damaged."""
    chance = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    world = World(grounds, Options(trainer=trainer))
    world.ledger.expected_tracebacks = ("No space left on device", "database or disk is full")
    points = (*WORKER_POINTS, *trainer.points)
    if kind == "worker for a while":
        violations = striking(world, f"{chance.choice(points)}=enospc@1", fails=False)
    elif kind == "worker for good":
        violations = striking(world, f"{chance.choice(points)}=enospc@1+", fails=True)
    elif kind == "store for a while":
        violations = striking(world, f"{STORE_POINTS[0]}=enospc@{chance.randint(1, 12)}", fails=False)
    elif kind == "SQLite":
        violations = tiny_database(world, chance)
    else:
        violations = tiny_scratch(world)
    return Outcome(seed, kind, 1, violations + world.finish())


def striking(world: World, strike: str, *, fails: bool) -> list[str]:
    job_id = world.submit(SCRIPT, must_succeed=not fails)
    world.start(strike=strike)
    world.wait_for_all(seconds=240)
    job = view(world.backend, job_id)
    if fails and (job.error is None or job.error.code != "disk_full"):
        return [f"{strike}: the job is {job.status}, {job.error}"]
    return []


class Mounted:
    """A file system of a few MiB in the run's folder. Needs root; without it the run is left out."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        self.is_there = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def fill(self, leave_bytes: int = 0) -> Path:
        path = self.folder / "filler"
        with path.open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    continue
            except OSError:
                pass
            filler.truncate(max(0, filler.tell() - leave_bytes))
        return path

    def close(self) -> None:
        if self.is_there:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)


def tiny_scratch(world: World) -> list[str]:
    """Every attempt runs out of space, and says so in the end."""
    disk = Mounted(world.backend.settings.scratch_dir, world.trainer.scratch_size)
    try:
        if not disk.is_there:
            return striking(world, "assignment.written=enospc@1+", fails=True)
        job_id = world.submit(Script(steps=12, checkpoint_bytes=200_000, checkpoint_every=2), must_succeed=False)
        world.start()
        world.wait_for_all(seconds=240)
        job = view(world.backend, job_id)
        world.wait_for_all("failed", seconds=1)
        for process in world.processes:
            process.send(15)
            process.wait()
        is_typed = job.error is not None and job.error.code == "disk_full"
        return [] if is_typed else [f"the job is {job.status}, {job.error}"]
    finally:
        disk.close()


def tiny_database(world: World, chance: random.Random) -> list[str]:
    """SQLite cannot grow for a few seconds: everybody waits, nothing is lost, the API says 503."""
    old = Path(str(world.backend.database.engine.url.database))
    disk = Mounted(world.folder / "disk", world.trainer.database_size)
    try:
        if not disk.is_there:
            return striking(world, "store.written=enospc@2", fails=False)
        world.move_database(disk.folder / old.name)
        job_id = world.submit(SCRIPT)
        world.start()
        api = world.start_api()
        api.wait_until_up()
        world.let_run(chance.uniform(0.2, 1))
        filler = disk.fill()
        statuses = []
        deadline = time.monotonic() + 4
        with api.client() as client:
            while time.monotonic() < deadline:
                statuses.append(client.patch(f"/jobs/{job_id}", json={"name": "x" * 200}).status_code)
                time.sleep(0.2)
        filler.unlink()
        world.wait_for_all("succeeded", seconds=240)
        faults = [f"the API answered {status}" for status in statuses if status not in (200, 503)]
        world.keep_database(old)
        return faults
    finally:
        disk.close()


DISKS = Row("disks", "full disk", 20, full_disk, num_parallel=2)
