"""What the first release (7b06ab9) made opens under this version, and its workers go on beside this version's API.

The data is made by that commit's own code, out of the repository's history; without the history there is no test.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import PROJECT, claim, make_backend, make_due, publication, status, submit

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.session import Database
from core.services.attempts import lifecycle
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.inputs import find_inputs
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.datasets.row_pages import RowsQuery
from core.services.jobs import checkpoint_policies, repeats, steering
from core.services.operations import garbage_collection
from core.services.operations.sweep import expire, list_leases
from core.storage import keys
from worker.attempt.inputs.fetcher import Fetcher
from worker.attempt.inputs.rows import fetch_rows

PEER = Path(__file__).with_name("released_peer.py")


class Peer:
    """A process of the first release."""

    def __init__(self, code: Path, folder: Path, url: str) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{code}:{code / 'tests'}", "PYTHONSAFEPATH": "1"}
        command = [sys.executable, str(PEER), str(folder), url]
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, command: str) -> dict[str, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, str] = json.loads(line)
                return answer
        raise AssertionError(f"the release's process died of {command!r}")

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@pytest.fixture
def peer(released_code: Path, tmp_path: Path, url: str) -> Iterator[Peer]:
    peer = Peer(released_code, tmp_path, url)
    yield peer
    peer.stop()


def open_upgraded(folder: Path, url: str) -> Backend:
    upgrade(url)
    return make_backend(folder, Database(open_engine(url)))


def vanish(backend: Backend, job_id: str) -> None:
    """The sweeper takes the job from its worker."""
    (lease,) = (lease for lease in list_leases(backend) if lease.job_id == job_id)
    assert expire(backend, lease)


def finish(backend: Backend, held: ClaimedJob, folder: Path) -> None:
    """Stage what the job reads, and publish."""
    fetcher = Fetcher(claim=held, work_dir=folder, check=lambda: None)
    assert fetch_rows(fetcher, find_inputs(backend, held).rows, "rows.jsonl").read_bytes().count(b"\n") == 24
    lifecycle.finish_succeeded(held, publication(backend, held))


def test_every_job_of_the_first_release_ends(peer: Peer, tmp_path: Path, url: str) -> None:
    made = peer.ask("make")
    backend = open_upgraded(tmp_path, url)
    assert list(tmp_path.glob("preftune.db.before-*")), "the file as it was is kept"
    assert len(datasets.list_rows(backend, PROJECT, made["dataset"], RowsQuery(limit=100)).data) == 24
    assert peer.ask("finish") == {"job": made["running"]}, "its worker works on"

    vanish(backend, made["vanished"])
    steering.resume(backend, PROJECT, made["paused"])
    resumed = {}
    for _ in range(3):
        make_due(backend)
        taken = claim(backend)
        resumed[taken.job_id] = lifecycle.begin(taken)
        finish(backend, taken, tmp_path)
    names = ("done", "vanished", "running", "paused", "queued")
    assert {name: status(backend, made[name]) for name in names} == dict.fromkeys(names, "succeeded")
    point = resumed[made["vanished"]]
    assert point is not None, "it goes on from the checkpoint that the release committed"
    assert (point.step, f"{made['vanished']}/a1/checkpoints" in point.tree.prefix) == (1, True)
    assert resumed[made["paused"]] is resumed[made["queued"]] is None


def test_policies_of_the_first_release_stay(peer: Peer, tmp_path: Path, url: str) -> None:
    made = peer.ask("make")
    backend = open_upgraded(tmp_path, url)
    while garbage_collection.collect(backend):
        pass
    (kept,) = checkpoint_policies.list_checkpoints(backend, PROJECT, made["done"])
    files = checkpoint_policies.find_archive(backend, PROJECT, made["done"], kept.id).files
    assert [backend.store.get_bytes(file.key) for file in files if file.path == "model.safetensors"] == [b"weights"]
    for prefix in {keys.owning_prefix(info.key) for info in backend.store.list(keys.ROOT)} - {None}:
        assert not garbage_collection.is_orphan(backend, str(prefix)), prefix
    vanish(backend, made["running"])
    steering.cancel(backend, PROJECT, made["running"])
    retried = repeats.retry(backend, PROJECT, made["running"])
    steering.cancel(backend, PROJECT, made["paused"])
    make_due(backend)
    assert retried.status.value == "queued"


def test_a_worker_of_the_first_release_takes_jobs_of_this_version(peer: Peer, tmp_path: Path, url: str) -> None:
    made = peer.ask("make")
    backend = open_upgraded(tmp_path, url)
    urgent = submit(backend, dataset_id=made["dataset"], priority=10, lora={}, early_stopping={}).id
    assert peer.ask("take") == {"job": urgent}
    assert peer.ask("finish") == {"job": urgent}
    assert status(backend, urgent) == "succeeded"
    handed_on = submit(backend, dataset_id=made["dataset"], priority=10).id
    assert peer.ask("take") == {"job": handed_on}
    vanish(backend, handed_on)
    make_due(backend)
    mine = claim(backend)
    assert mine.job_id == handed_on
    point = lifecycle.begin(mine)
    assert point is not None, "from the checkpoint of the release's worker"
    finish(backend, mine, tmp_path)
