"""Jobs on two nodes between two network namespaces, with PostgreSQL, Redis and S3 in a third: `make test-nodes`.

`KILLS` and `PARTITIONS` say how often; each ends an attempt, and the job goes on from its last checkpoint.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from backends import BASE_MODEL, PROJECT, CountingQueue, submit
from faults.proxy import FaultProxy
from nodes.hosts import GATEWAY, Host, descendants, make_hosts
from servers import run_postgresql, run_redis, run_s3
from tiny_models import make_tiny_model
from toy_jobs import attempts_of, checkpoints_of, events, messages, points, view, wait_for, wait_for_status
from trained_jobs import FIELDS, add_rows, fetch_artifact, make_rows, run_to_end

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.session import Database
from core.services.backend import Backend
from core.services.jobs import steering
from core.settings import Settings
from core.storage.open_store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS, PARTITIONS = int(os.environ.get("KILLS", "4")), int(os.environ.get("PARTITIONS", "2"))
SEED = int(os.environ.get("SEED", "0"))
LEASE_SECONDS = 8.0
TIMES = {"lease_seconds": LEASE_SECONDS, "heartbeat_seconds": 0.5, "sweep_seconds": 0.5, "poll_seconds": 0.5}
RECOVERY_SECONDS = LEASE_SECONDS + 30
LONG: dict[str, Any] = FIELDS | {"dpo": FIELDS["dpo"] | {"epochs": 40}, "reuse": False, "checkpoint_every_steps": 8}


@dataclass
class Cluster:
    backend: Backend
    hosts: list[Host]
    settings: dict[str, object]
    folder: Path

    def start(self, host: Host) -> None:
        own = self.folder / f"host-{host.number}"
        own.mkdir(exist_ok=True)
        named = {"data_dir": own / "data", "worker_name": f"host-{host.number}-{time.monotonic_ns()}"}
        host.start_worker(self.settings | named, self.folder / f"host-{host.number}.log")

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in sorted(self.folder.glob("*.log")))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    model = make_tiny_model(folder / "models" / BASE_MODEL)
    with ExitStack() as stack:
        hosts = stack.enter_context(make_hosts())
        database, redis, s3 = (stack.enter_context(server()) for server in (run_postgresql, run_redis, run_s3))
        url = database.create_database("nodes")
        upgrade(url)
        doors = [stack.enter_context(FaultProxy(port, GATEWAY)) for port in (database.port, redis.port, s3.port)]
        common: dict[str, object] = {
            "models_dir": model.parent,
            "storage_url": "s3://nodes",
            "s3_access_key_id": s3.access_key_id,
            "s3_secret_access_key": s3.secret_access_key,
            "device": "cpu",
            "num_threads": 1,
            "worker_lanes": "training",
            "stop_grace_seconds": 20.0,
            **TIMES,
        }
        own = Settings(
            **common | {"data_dir": folder / "data", "database_url": url, "s3_endpoint_url": s3.endpoint_url}  # type: ignore[arg-type]
        )
        backend = Backend(
            settings=own, database=Database(open_engine(url)), store=open_store(own), queue=CountingQueue()
        )
        stack.callback(backend.close)
        remote = {
            "database_url": url.replace(f"127.0.0.1:{database.port}", f"{GATEWAY}:{doors[0].port}"),
            "broker_url": f"redis://{GATEWAY}:{doors[1].port}/0",
            "s3_endpoint_url": f"http://{GATEWAY}:{doors[2].port}",
        }
        assert remote["database_url"] != url
        made = Cluster(backend, hosts, common | remote, folder)
        stack.callback(lambda: stop(made))
        add_rows(backend, make_rows())
        for host in hosts:
            made.start(host)
        yield made


def stop(cluster: Cluster) -> None:
    for host in cluster.hosts:
        if host.worker is not None and host.worker.poll() is None:
            host.worker.kill()
            host.worker.wait()


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> str:
    job_id = submit(cluster.backend, **LONG, nodes=2).id
    ended = wait_for_status(cluster.backend, job_id, "succeeded", "failed", seconds=400)
    assert ended.status.value == "succeeded", (messages(cluster.backend, job_id), cluster.logs())
    return job_id


def weights_of(cluster: Cluster, job_id: str) -> bytes:
    folder = cluster.folder / f"artifact-{job_id}"
    if not folder.exists():
        fetch_artifact(cluster.backend, job_id, folder)
    return (folder / "model.safetensors").read_bytes()


def test_two_hosts_give_the_curve_of_one_process(cluster: Cluster, undisturbed: str) -> None:
    alone = submit(cluster.backend, **LONG).id
    assert run_to_end(cluster.backend, alone).status.value == "succeeded"
    expected, found = points(cluster.backend, alone), points(cluster.backend, undisturbed)
    assert [(one.stage, one.split, one.step) for one in expected] == [(one.stage, one.split, one.step) for one in found]
    for one, other in zip(expected, found, strict=True):
        assert other.values["loss"] == pytest.approx(one.values["loss"], rel=1e-5, abs=1e-5)
    (started,) = [event for event in events(cluster.backend, undisturbed) if event.kind == "started"]
    assert len(started.data["nodes"]) == 2


def await_attempt(cluster: Cluster, job_id: str) -> int:
    """Wait until the job runs; return the number of its attempt."""
    wait_for(lambda: view(cluster.backend, job_id).status.value != "queued", "an attempt", RECOVERY_SECONDS)
    return view(cluster.backend, job_id).attempt


def await_checkpoint(cluster: Cluster, job_id: str, attempt: int) -> None:
    wait_for(
        lambda: (
            any(found.attempt == attempt for found in checkpoints_of(cluster.backend, job_id))
            or view(cluster.backend, job_id).status.value != "running"
        ),
        "a checkpoint of the attempt",
        120,
    )


def finish(cluster: Cluster, job_id: str, undisturbed: str) -> None:
    ended = wait_for_status(cluster.backend, job_id, "succeeded", "failed", seconds=400)
    assert ended.status.value == "succeeded", (messages(cluster.backend, job_id), cluster.logs())
    assert weights_of(cluster, job_id) == weights_of(cluster, undisturbed)
    assert len([event for event in events(cluster.backend, job_id) if event.to_status == "succeeded"]) == 1


def recover(cluster: Cluster, job_id: str, attempt: int, since: float) -> float:
    """Wait for the next attempt; return how long it took."""
    wait_for(lambda: view(cluster.backend, job_id).attempt > attempt, "the next attempt", RECOVERY_SECONDS)
    return time.monotonic() - since


def test_kills_of_any_process_of_either_host(cluster: Cluster, undisturbed: str) -> None:
    chance, took = random.Random(SEED), []
    job_id, num_left = submit(cluster.backend, **LONG, nodes=2).id, KILLS
    while num_left:
        attempt = await_attempt(cluster, job_id)
        await_checkpoint(cluster, job_id, attempt)
        if view(cluster.backend, job_id).status.value != "running":  # it was faster: another one
            finish(cluster, job_id, undisturbed)
            job_id = submit(cluster.backend, **LONG, nodes=2).id
            continue
        host = chance.choice(cluster.hosts)
        assert host.worker is not None
        victims = [host.worker.pid, *descendants(host.worker.pid)]
        victim, since = chance.choice(victims), time.monotonic()
        os.kill(victim, signal.SIGKILL)
        if victim == host.worker.pid:
            host.worker.wait()
            cluster.start(host)
        num_left -= 1
        took.append(round(recover(cluster, job_id, attempt, since), 1))
    finish(cluster, job_id, undisturbed)
    print(f"{len(took)} kills; seconds to the next attempt: {sorted(took)}")  # noqa: T201


def test_partitions_one_way_and_both_ways(cluster: Cluster, undisturbed: str) -> None:
    chance = random.Random(SEED)
    job_id = submit(cluster.backend, **LONG, nodes=2).id
    for number in range(PARTITIONS):
        attempt = await_attempt(cluster, job_id)
        await_checkpoint(cluster, job_id, attempt)
        if view(cluster.backend, job_id).status.value != "running":
            break
        one, other = chance.sample(cluster.hosts, 2)
        with one.cut_off() if number % 2 == 0 else one.deaf_to(other):
            wait_for(
                lambda attempt=attempt: attempts_of(cluster.backend, job_id)[attempt - 1].outcome is not None,
                "the end of the attempt",
                RECOVERY_SECONDS + (0 if number % 2 == 0 else 60),
            )
        recover(cluster, job_id, attempt, time.monotonic())
    finish(cluster, job_id, undisturbed)


def test_a_closed_port_is_named(cluster: Cluster) -> None:
    one, other = cluster.hosts
    with one.deaf_to(other, "prohibit"):
        job_id = submit(cluster.backend, **LONG, nodes=2).id
        wait_for(lambda: "requeued" in [event.kind for event in events(cluster.backend, job_id)], "the end of it", 90)
        (told,) = [event.message for event in events(cluster.backend, job_id) if event.kind == "requeued"][:1]
        assert other.address in told
        assert "cannot connect to node" in told
        assert "open in their private network" in told
        steering.cancel(cluster.backend, PROJECT, job_id)
        wait_for_status(cluster.backend, job_id, "cancelled")


def test_cancels_and_pauses(cluster: Cluster, undisturbed: str) -> None:
    paused, cancelled = (submit(cluster.backend, **LONG, nodes=2).id for _ in range(2))
    wait_for(lambda: view(cluster.backend, paused).attempt == 1, "the first attempt", RECOVERY_SECONDS)
    await_checkpoint(cluster, paused, 1)
    steering.pause(cluster.backend, PROJECT, paused)
    wait_for_status(cluster.backend, paused, "paused", "succeeded")
    wait_for(lambda: view(cluster.backend, cancelled).attempt == 1, "the other job's attempt", RECOVERY_SECONDS)
    steering.cancel(cluster.backend, PROJECT, cancelled)
    wait_for_status(cluster.backend, cancelled, "cancelled")
    if view(cluster.backend, paused).status.value == "paused":
        steering.resume(cluster.backend, PROJECT, paused)
    finish(cluster, paused, undisturbed)
