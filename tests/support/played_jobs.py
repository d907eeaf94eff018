"""Jobs whose worker is played by the test: what it does, when the test says."""

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from api_server import RunningApi
from backends import claim, point, publication
from sqlalchemy import update

from core.database.tables.jobs import Job
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.services.attempts import lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.lifecycle import Publication
from core.storage import keys


def start(api: RunningApi, **fields: Any) -> ClaimedJob:
    """A running job of highest priority."""
    job = api.submit(**{"priority": 100} | fields)
    held = claim(api.backend)
    assert held.job_id == job["id"]
    lifecycle.begin(held)
    return held


def learn(api: RunningApi, held: ClaimedJob, steps: Iterable[int], slope: float = 0.1) -> None:
    """Points of a DPO run whose margin grows by `slope` a step."""
    made = []
    for step in steps:
        margin = slope * step
        rewards = {"rewards/margins": margin, "rewards/chosen": margin / 4, "rewards/rejected": -margin * 3 / 4}
        made.append(
            point(
                step,
                0.693 - slope * step / 10,
                **rewards,
                **{"rewards/accuracies": min(1.0, margin), "num_tokens": 100.0},
            )
        )
    recording.record_points(held, made)


def finish(api: RunningApi, held: ClaimedJob) -> None:
    lifecycle.finish_succeeded(held, publication(api.backend, held))


def publish(api: RunningApi, held: ClaimedJob, files: dict[str, Any], results: dict[str, Any] | None) -> None:
    """End the job with these files, whose values are written as JSON lines."""
    prefix = keys.artifact_prefix(held.project_id, held.job_id, held.attempt_name)
    published = []
    for name, rows in files.items():
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        api.backend.store.put_bytes(prefix + name, content)
        digest = hashlib.sha256(content).hexdigest()
        published.append(StoredFile(path=name, key=prefix + name, num_bytes=len(content), sha256=digest))
    tree = StoredTree(prefix=prefix, manifest_sha256="3" * 64)
    lifecycle.finish_succeeded(held, Publication(tree=tree, files=published))
    changed = update(Job).where(Job.id == held.job_id).values(results=results)
    api.backend.database.write(lambda session: session.execute(changed))


@contextmanager
def plays_all(api: RunningApi, steps: Sequence[int] = (1, 2, 3)) -> Iterator[None]:
    """A thread that takes every job that is queued and ends it well, while the block runs."""
    ended = threading.Event()

    def play() -> None:
        while not ended.wait(0.05):
            held = lifecycle.claim(api.backend, worker="worker-1", host="host", device="cpu")
            if held is not None:
                lifecycle.begin(held)
                learn(api, held, steps)
                finish(api, held)

    worker = threading.Thread(target=play, name="played worker")
    worker.start()
    try:
        yield
    finally:
        ended.set()
        worker.join()
