"""Training through the service: jobs over HTTP, their policies as folders, verdicts of a language model."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cli.data_lock import DataDirLock
from cli.demo import running_service
from preftune import Client

Job = dict[str, Any]
ENDED = ("failed", "cancelled")
GRACE_SECONDS = 150.0
"""Time that processes of a service which was killed may take to end."""
MAX_JOBS = 100
"""Jobs that are looked through for a name; at most one is kept for each part."""


class Service:
    """A service of its own, started when it is first asked for and ended with the context."""

    def __init__(self, folder: Path, models_dir: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._models_dir = models_dir
        self._stack = ExitStack()
        self._client: Client | None = None

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def client(self) -> Client:
        if self._client is None:
            data_dir = self._folder / "data"
            lock = DataDirLock.take(data_dir, GRACE_SECONDS)
            if lock is None:
                raise SystemExit(f"a service that an earlier run has started still uses {data_dir}; end it first")
            lock.release()
            url = self._stack.enter_context(running_service(data_dir, self._models_dir))
            self._client = self._stack.enter_context(Client(url))
        return self._client

    def upload(self, name: str, rows: Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
        """Return the dataset."""
        path = self._folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return self.client.datasets.upload(path, **fields)

    def train(self, name: str, **fields: Any) -> Job:
        """Run a job to its end, or wait for that of this name which an earlier run has begun. Exits where it fails."""
        known = self._find(name)
        job = known or self.client.jobs.submit(name=name, **({"validation_fraction": 0} | fields))
        job = self.client.jobs.wait(job["id"], poll_seconds=1.0)
        if job["status"] != "succeeded":
            raise SystemExit(f"{name}: {job['id']} ended as {job['status']}: {job['error']}")
        return job

    def forget(self, name: str) -> None:
        """Delete a job that is no longer needed, if it is there."""
        job = self._find(name)
        if job is not None:
            self.client.jobs.delete(job["id"])

    def _find(self, name: str) -> Job | None:
        found = self.client.jobs.list(search=name, limit=MAX_JOBS)["data"]
        return next((job for job in found if job["name"] == name and job["status"] not in ENDED), None)

    def policy(self, job_id: str, folder: Path) -> Path:
        """Download a job's policy, once."""
        if not folder.exists():
            unfinished = folder.with_name(folder.name + ".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            self.client.jobs.download(job_id, unfinished)
            unfinished.rename(folder)
        return folder

    def checkpoints(self, job: Job) -> list[tuple[int, str]]:
        """Return step and id of each checkpoint with a policy before the job's end, oldest first."""
        last, found = job["results"]["step"], reversed(self.client.jobs.checkpoints(job["id"]))
        return [(item["step"], item["id"]) for item in found if item["archive_url"] and item["step"] < last]

    def checkpoint(self, job_id: str, checkpoint_id: str, folder: Path) -> Path:
        """Download a checkpoint's policy in the place of what is in the folder."""
        shutil.rmtree(folder, ignore_errors=True)
        self.client.jobs.download_checkpoint(job_id, checkpoint_id, folder)
        return folder

    def judge(
        self, name: str, rows: Sequence[Mapping[str, Any]], models: Sequence[str], judge: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Have answers of two models judged: rows have `prompt`, `response` and `model`. Exits where that fails."""
        dataset = self.upload(name, rows, kind="responses", on_error="skip")  # a model may draw what is no text
        made = self.client.judgements.create(dataset_id=dataset["id"], models=[*models], judge=dict(judge), name=name)
        found = self.client.judgements.wait(made["id"])
        if found["status"] != "succeeded":
            raise SystemExit(f"{name}: {made['id']} ended as {found['status']}: {found['error']}")
        return found


def every(num_rows: int, batch_size: int, epochs: int, num_points: int) -> int:
    """Return the distance between the checkpoints of a job that is to be evaluated so often, in steps."""
    steps = epochs * math.ceil(num_rows / batch_size)
    return max(1, math.ceil(steps / num_points))
