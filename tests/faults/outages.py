"""Broker, database and object store that go away, lie half-open, restart empty, or answer wrongly."""

import os
import random
import signal
import threading
import time
from contextlib import ExitStack
from typing import Any

import httpx
import redis
from faults import audit
from faults.grounds import Grounds
from faults.outcome import Outcome, Row
from faults.proxy import FaultProxy
from faults.s3_proxy import S3FaultProxy, Trouble
from faults.trainers import Trainer
from faults.world import COMBINATIONS, Api, Options, World
from servers import free_port, run_postgresql, run_redis
from toy_jobs import attempts_of, checkpoints_of, events, wait_for
from toy_trainer import Script

from core.services.jobs import steering
from core.storage.trees import read_manifest

MAX_ANSWER_SECONDS = 10.0
"""A request hands its wake-up to a thread and waits for no broker, which would hold it for minutes where half-open;
the rest is for a machine that runs the other tests meanwhile."""
SCRIPT = Script(steps=15, step_seconds=0.04, checkpoint_every=3)


def post_job(world: World, client: httpx.Client, script: Script = SCRIPT, **fields: Any) -> tuple[int, float, str]:
    """(status, seconds, job id) of one submission through the API; acknowledged ones are promised."""
    body = world.request(script, reuse=False, **fields)
    start = time.monotonic()
    answer = client.post("/jobs", json=body)
    seconds = time.monotonic() - start
    if answer.status_code != 201:
        return answer.status_code, seconds, answer.headers.get("retry-after", "")
    job_id = answer.json()["id"]
    world.promise(job_id, script)
    return 201, seconds, job_id


def broker_outage(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """Redis killed with all it held, half-open, or never started; and full of doubled and forged messages."""
    chance = random.Random(seed)
    kind = ("killed", "half-open", "never started", "flooded")[seed % 4]
    database, store = COMBINATIONS[(seed // 4) % 4]
    port = free_port()
    violations: list[str] = []
    world = World(grounds, Options(database, store, trainer))
    with ExitStack() as stack:
        server = None if kind == "never started" else stack.enter_context(run_redis(port))
        url = f"redis://127.0.0.1:{port}/0"
        api = world.start_api(broker_url=url)
        for _ in range(2):
            world.start(broker_url=url, poll_seconds=1.0)
        world.submit(SCRIPT, reuse=False)
        api.wait_until_up()
        world.let_run(chance.uniform(0.2, 1.5))
        if kind == "killed" and server is not None:
            server.process.kill()
            server.process.wait()
        if kind == "half-open" and server is not None:
            os.kill(server.process.pid, signal.SIGSTOP)
        if kind == "flooded":
            flood(redis.Redis(port=port), chance)
        with api.client() as client:
            for _ in range(1 if trainer.is_costly else 3):
                status, seconds, _ = post_job(world, client)
                if status != 201 or seconds > MAX_ANSWER_SECONDS:
                    violations.append(f"POST /jobs answered {status} after {seconds:.2f} s")
        if kind == "killed" and chance.random() < 0.5:
            stack.enter_context(run_redis(port))
        if not world.wait_for_all("succeeded", seconds=240):
            violations.append("not every job has run")
        violations += [f"{job_id}: more than one attempt" for job_id in extra_attempts(world)]
        if kind == "half-open" and server is not None:
            os.kill(server.process.pid, signal.SIGCONT)
        violations += world.finish()
    return Outcome(seed, f"{kind} {database} {store}", 1, violations)


def flood(client: "redis.Redis", chance: random.Random) -> None:
    """Wake-ups a hundred times, tasks nobody knows, and bytes that are no message."""
    wake = (
        '{"body": "W1tdLCB7fSwge31d", "content-encoding": "utf-8", "content-type": "application/json", '
        '"headers": {"task": "%s", "id": "%d", "lang": "py"}, "properties": {"delivery_tag": "%d", '
        '"delivery_info": {"exchange": "", "routing_key": "train"}, "body_encoding": "base64"}}'
    )
    for number in range(100):
        client.lpush("preftune:train", wake % ("train.wake", number % 7, number))
    for number in range(10):
        client.lpush("preftune:train", wake % (chance.choice(("os.system", "train.finish")), number, number))


def extra_attempts(world: World) -> list[str]:
    return [job_id for job_id in world.ledger.scripts if len(attempts_of(world.backend, job_id)) != 1]


def database_outage(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """A PostgreSQL of its own: restarted, cut off, half-open, slow or losing its answers, under load."""
    chance = random.Random(seed)
    kind = ("restart", "cut off", "half-open", "answers lost", "slow")[seed % 5]
    seconds = 30.0 if seed % 10 in (0, 1) else chance.uniform(3, 8)
    with run_postgresql(synchronous_commit="on") as server, FaultProxy(server.port) as proxy:
        grounds.migrate(server.create_database("run"))
        options = Options("postgresql", COMBINATIONS[seed % 4][1], trainer)
        options.database_url = f"postgresql://postgres@127.0.0.1:{proxy.port}/run"
        world = OwnServerWorld(grounds, options, server.url("run"))
        audit.install(world.backend.database)
        violations = suffer(world, proxy, server, (kind, seconds), chance)
        violations += world.finish()
    return Outcome(seed, kind, 1, violations, {"outage_seconds": [round(seconds, 1)]})


class OwnServerWorld(World):
    """Its database lies on a server of its own, which has the schema."""

    def __init__(self, grounds: Grounds, options: Options, url: str) -> None:
        self._url = url
        super().__init__(grounds, options)

    def _make_database(self) -> str:
        return self._url


def suffer(world: World, proxy: FaultProxy, server: Any, what: tuple[str, float], chance: random.Random) -> list[str]:
    kind, seconds = what
    workers = [world.start() for _ in range(2)]
    api = world.start_api()
    for _ in range(2):
        world.submit(Script(steps=40, step_seconds=0.05, checkpoint_every=5), reuse=False)
    api.wait_until_up()
    wait_for(lambda: len(world.trainers()) == 2, "both jobs to run", 240)
    answers: list[tuple[int, str]] = []
    is_over = threading.Event()
    load = [threading.Thread(target=ask, args=(world, api, is_over, answers)) for _ in range(2)]
    for thread in load:
        thread.start()
    world.let_run(chance.uniform(0.2, 1.5))
    outage(proxy, server, kind, seconds)
    is_over.set()
    for thread in load:
        thread.join()
    violations = [f"the API answered {status}" for status, _ in answers if status not in (200, 201, 304, 503)]
    violations += ["503 without Retry-After" for status, after in answers if status == 503 and not after]
    if not world.wait_for_all("succeeded", seconds=240):
        violations.append("not every job has run")
    violations += [f"{job_id}: failed over although its worker lived" for job_id in extra_attempts(world)]
    violations += [f"a worker ended with {worker.code}" for worker in workers if not worker.is_running]
    return violations


def outage(proxy: FaultProxy, server: Any, kind: str, seconds: float) -> None:
    if kind == "restart":
        server.stop("immediate" if seconds < 6 else "fast")
        time.sleep(seconds)
        server.start()
        return
    proxy.is_refusing = kind == "cut off"
    proxy.is_half_open = kind == "half-open"
    proxy.latency_seconds = 0.05 if kind == "slow" else 0.0
    if kind == "cut off":
        proxy.reset()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        proxy.drops_answers = kind == "answers lost" and int(time.monotonic() * 2) % 2 == 0
        time.sleep(0.1)
    proxy.is_refusing = proxy.is_half_open = proxy.drops_answers = False
    proxy.latency_seconds = 0.0


def ask(world: World, api: Api, is_over: threading.Event, answers: list[tuple[int, str]]) -> None:
    """A client that goes on asking; what was acknowledged must be there in the end."""
    number = 0
    with api.client(timeout=120) as client:
        while not is_over.wait(0.3):
            number += 1
            if number == 1 or (number % 8 == 1 and not world.trainer.is_costly):
                status, _, after = post_job(world, client, Script(steps=2), priority=-1)
            else:
                answer = client.get("/jobs")
                status, after = answer.status_code, answer.headers.get("retry-after", "")
            answers.append((status, after if status == 503 else ""))


def store_faults(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """30 % errors of every kind, an outage, objects lost, bytes flipped on the way or at rest."""
    chance = random.Random(seed)
    kind = ("errors", "outage", "silence", "damaged at rest", "flipped on the way", "errors after")[seed % 6]
    database = COMBINATIONS[(seed // 6) % 2][0]
    away = threading.Event()

    def choose(method: str, path: str) -> Trouble:
        if "/jobs/" not in path and kind != "outage":
            return "none"
        if kind == "outage":
            return "503" if away.is_set() else "none"
        if kind == "silence":
            return "silence" if method == "PUT" and chance.random() < 0.02 else "none"
        if kind == "flipped on the way":
            return "flip" if method == "GET" and "list-type" not in path and chance.random() < 0.3 else "none"
        troubles: tuple[Trouble, ...] = ("500", "503", "reset")
        if kind == "errors after":
            troubles = ("500 after", "reset after")
        return chance.choice(troubles) if chance.random() < 0.3 else "none"

    with S3FaultProxy(grounds.s3.port, choose) as proxy:
        world = World(grounds, Options(database, "s3", trainer, s3_endpoint_url=proxy.url))
        damaging = kind in ("damaged at rest", "flipped on the way")
        crashes = {"1": 9, "2": 13} if damaging else {}
        script = Script(steps=15, step_seconds=0.05, checkpoint_every=3, kill_at=crashes)
        job_id = world.submit(script, reuse=False)
        world.start(strike=trainer.crashes(script, world.folder))
        violations = []
        if kind == "outage":
            world.let_run(chance.uniform(0.5, 2))
            away.set()
            time.sleep(chance.uniform(3, 8))
            away.clear()
        if kind == "damaged at rest":
            violations += damage(world, job_id, chance)
        if not world.wait_for_all("succeeded", seconds=240):
            violations.append("the job has not run")
        violations += world.finish()
    return Outcome(seed, f"{kind} {database}", 1, violations, {"requests": [proxy.counts]})


def damage(world: World, job_id: str, chance: random.Random) -> list[str]:
    """Of the newest checkpoint: flip a byte, delete an object, or cut the manifest; while the job waits."""
    wait_for(lambda: len(checkpoints_of(world.backend, job_id)) >= 2, "two checkpoints", 240)
    steering.pause(world.backend, "default", job_id)
    wait_for(lambda: world.status(job_id) in ("paused", "succeeded"), "the job to pause", 240)
    if world.status(job_id) == "succeeded":
        return []
    newest = max(
        checkpoints_of(world.backend, job_id), key=lambda one: (one.stage.value == "dpo", one.step, one.attempt)
    )
    store = world.backend.store
    files = sorted(read_manifest(store, newest.tree), key=lambda file: file.num_bytes)
    what = chance.choice(("flip", "delete", "cut"))
    if what == "flip":
        content = bytearray(store.get_bytes(newest.prefix + files[-1].path))
        content[chance.randrange(len(content))] ^= 1
        store.put_bytes(newest.prefix + files[-1].path, bytes(content))
    elif what == "delete":
        store.delete(newest.prefix + files[0].path)
    else:
        store.put_bytes(newest.prefix + "manifest.json", store.get_bytes(newest.prefix + "manifest.json")[:-3])
    steering.resume(world.backend, "default", job_id)
    world.wait_for_all("succeeded", seconds=240)
    kinds = [event.kind for event in events(world.backend, job_id)]
    return [] if "checkpoint_corrupt" in kinds else [f"{what}: nobody noticed the damage"]


BROKER = Row("broker", "outage", 30, broker_outage, num_parallel=2)
DATABASE = Row("database", "outage", 30, database_outage, num_parallel=2)
STORE = Row("store", "run", 60, store_faults, num_parallel=3)
