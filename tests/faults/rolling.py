"""`make test-rolling`: an upgrade of two API processes, one after the other, under running jobs and pollers.

The newer version is this tree with one more migration. The schema is migrated first; then one process of the old
version is killed and started again on the newer schema, and both are replaced. A request that fails is sent once more
after half a second, as a client does that retries; what fails then counts.
"""

import argparse
import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from backends import submit
from faults.balancer import Balancer
from faults.grounds import Grounds
from faults.world import Options, World
from servers import free_port
from toy_jobs import wait_for
from toy_trainer import Script

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "worker", "cli", "core", "client", "migrations")
NUM_JOBS, NUM_POLLERS, NUM_WRITERS = 50, 200, 4
PAUSE_SECONDS = 4.0
"""Between two requests of a poller, on average."""
RETRY_SECONDS = 0.5
QUIET_SECONDS = 5.0
"""Before, between and after the steps of the upgrade."""
CALM = {"lease_seconds": 60.0, "heartbeat_seconds": 5.0, "sweep_seconds": 2.0, "poll_seconds": 2.0}
NEXT_VERSION = '''
"""What a next version might add"""

import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("colour", sa.Text(), nullable=True))
    op.create_table("colours", sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id"), primary_key=True))
'''


def next_version(folder: Path) -> Path:
    """This tree with one more migration, as an installation of its own."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    versions = folder / "migrations" / "versions"
    newest = max(path.name[:4] for path in versions.glob("*.py"))
    (versions / "9000_next.py").write_text(NEXT_VERSION.format(newest=newest))
    return folder


@dataclass
class Tally:
    answers: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    """Failures that one more try has cured, by kind."""
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Users:
    """Everybody who asks the service meanwhile."""

    def __init__(self, url: str, job_ids: Sequence[str], request: dict[str, Any]) -> None:
        self._url, self._job_ids, self._request = url, job_ids, request
        self.tally = Tally()
        self.created: list[str] = []
        self.is_over = asyncio.Event()

    async def run(self) -> None:
        headers = {"Authorization": "Bearer canary-api-key"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=NUM_POLLERS)
        async with httpx.AsyncClient(base_url=self._url, headers=headers, timeout=30, limits=limits) as client:
            pollers = [self._poll(client, random.Random(number)) for number in range(NUM_POLLERS)]
            await asyncio.gather(*pollers, *(self._write(client, number) for number in range(NUM_WRITERS)))

    async def _poll(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        after = 0
        job_id = chance.choice(self._job_ids)
        while not self.is_over.is_set():
            await asyncio.sleep(chance.uniform(0, 2 * PAUSE_SECONDS))
            path = chance.choice((f"/jobs/{job_id}", f"/jobs/{job_id}/metrics", f"/jobs/{job_id}/events", "/jobs"))
            params = {"after": after} if path.endswith("/metrics") else {}
            answer = await self._ask(client, "GET", path, params=params)
            if answer is not None and params:
                after = answer.json()["last_seq"]

    async def _write(self, client: httpx.AsyncClient, number: int) -> None:
        """Create jobs under keys, and cancel them: each must be there once."""
        turn = 0
        while not self.is_over.is_set():
            turn += 1
            key = {"Idempotency-Key": f"writer-{number}-{turn}"}
            answer = await self._ask(client, "POST", "/jobs", json=self._request, headers=key)
            if answer is not None:
                self.created.append(answer.json()["id"])
                await self._ask(client, "POST", f"/jobs/{self.created[-1]}/cancel")
            await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, client: httpx.AsyncClient, method: str, path: str, **options: Any) -> httpx.Response | None:
        fault = ""
        for number in range(2):
            started = time.monotonic()
            try:
                answer = await client.request(method, path, **options)
            except httpx.TransportError as error:
                fault = type(error).__name__
            else:
                self.tally.seconds.append(time.monotonic() - started)
                if answer.status_code < 400:
                    self.tally.answers[f"{answer.status_code}"] += 1
                    self.tally.retried.update([fault] * number)
                    return answer
                fault = f"{answer.status_code}"
            await asyncio.sleep(RETRY_SECONDS)
        self.tally.lost.append(f"{method} {path}: {fault}")
        return None


class Versions:
    """API processes of one version or another, with the settings of a world."""

    def __init__(self, world: World, trees: dict[str, Path]) -> None:
        self._world, self._trees = world, trees
        self._ports = [free_port(), free_port()]
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = [self._start(port, "old") for port in self._ports]
        self.ports = self._ports

    def run(self, version: str, *arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
        tree = self._trees[version]
        environment = self._world.environment(session_secret="canary-session-secret" * 2, **settings)
        environment |= {"PYTHONPATH": f"{tree}:{tree / 'client'}", "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
        log = self._world.folder / f"api-{version}-{time.monotonic_ns()}.log"
        self._world.logs.append(log)
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "cli.main", *arguments],
                env=environment,
                cwd=self._world.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def _start(self, port: int, version: str) -> tuple[str, subprocess.Popen[bytes]]:
        return version, self.run(version, "api", host="127.0.0.1", port=port)

    async def replace(self, place: int, version: str, number: signal.Signals) -> str:
        """End the process in that place and start one of that version; return what was done."""
        old_version, process = self._running[place]
        process.send_signal(number)
        code = await asyncio.to_thread(process.wait, 120)
        assert code == (0 if number is signal.SIGTERM else -number), f"the API ended with {code}"
        self._running[place] = self._start(self._ports[place], version)
        await self.wait_until_up(place)
        return f"{old_version} -> {version} in place {place}, by {number.name}"

    async def wait_until_up(self, place: int) -> None:
        deadline = time.monotonic() + 180
        async with httpx.AsyncClient() as client:
            while True:
                assert self._running[place][1].poll() is None, "the API has ended"
                assert time.monotonic() < deadline, "the API does not start"
                try:
                    await client.get(f"http://127.0.0.1:{self._ports[place]}/health/live", timeout=30)
                    return
                except httpx.TransportError:
                    await asyncio.sleep(0.1)

    def stop(self) -> list[int]:
        for _, process in self._running:
            process.terminate()
        return [process.wait(120) for _, process in self._running]


async def upgrade(versions: Versions, users: Users) -> list[str]:
    """The upgrade itself; return its steps."""
    steps = []
    asking = asyncio.create_task(users.run())
    try:
        await asyncio.sleep(QUIET_SECONDS)
        migration = versions.run("new", "migrate")
        assert await asyncio.to_thread(migration.wait, 120) == 0, "the migration failed"
        steps.append("schema migrated under both")
        for place, version, number in (
            (1, "old", signal.SIGKILL),
            (0, "new", signal.SIGTERM),
            (1, "new", signal.SIGTERM),
        ):
            await asyncio.sleep(QUIET_SECONDS)
            steps.append(await versions.replace(place, version, number))
        await asyncio.sleep(QUIET_SECONDS)
    finally:
        users.is_over.set()
        await asking
    return steps


def run(grounds: Grounds, trees: Path) -> dict[str, Any]:
    world = World(grounds, Options("postgresql", "local", settings=CALM))
    gate = world.folder / "gate"
    gate.mkdir()
    script = Script(steps=30, step_seconds=0.2, checkpoint_every=10, hold_at={"1": 25}, hold_until=str(gate))
    job_ids = [submit(world.backend, **world.request(script, reuse=False)).id for _ in range(NUM_JOBS)]
    world.ledger.scripts |= dict.fromkeys(job_ids, script)
    world.ledger.must_succeed |= set(job_ids)
    workers = [world.start(worker_name=f"w{number}") for number in range(NUM_JOBS)]
    versions = Versions(world, {"old": ROOT, "new": next_version(trees)})
    balancer = Balancer(versions.ports).start()
    try:
        wait_for(lambda: len(world.trainers()) == NUM_JOBS, "all jobs to run", 600)
        users = Users(f"http://127.0.0.1:{balancer.port}", job_ids, world.request(Script(steps=1)))

        async def everything() -> list[str]:
            for place in range(2):
                await versions.wait_until_up(place)
            return await upgrade(versions, users)

        steps = asyncio.run(everything())
        num_running = sum(world.status(job_id) == "running" for job_id in job_ids)
        (gate / "1").touch()
        world.ledger.scripts |= dict.fromkeys(users.created, Script(steps=1))
        violations = [] if world.wait_for_all("succeeded", "cancelled", seconds=600) else ["not every job has ended"]
        violations += [f"an API ended with {code}" for code in versions.stop() if code]
        violations += [f"a worker ended with {worker.code}" for worker in workers if not worker.is_running]
    finally:
        balancer.close()
    tally = users.tally
    seconds = sorted(tally.seconds)
    if len(set(users.created)) != len(users.created):
        violations.append("one key made two jobs")
    return {
        "steps": steps,
        "jobs_running_throughout": num_running,
        "requests": sum(tally.answers.values()),
        "cured_by_one_retry": dict(tally.retried),
        "not_cured": tally.lost[:20],
        "p50_seconds": round(seconds[len(seconds) // 2], 3),
        "p99_seconds": round(seconds[len(seconds) * 99 // 100], 3),
        "violations": violations + world.finish(),
    }


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with Grounds.open() as grounds:
        outcome = run(grounds, grounds.folder / "next-version")
    sys.stdout.write(json.dumps(outcome, indent=1) + "\n")
    return 1 if outcome["violations"] or outcome["not_cured"] or outcome["jobs_running_throughout"] != NUM_JOBS else 0


if __name__ == "__main__":
    sys.exit(main())
