"""Training through the service: jobs over HTTP, the policies of their checkpoints, one after another, as folders."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cli.demo import running_service
from preftune import Client

Job = dict[str, Any]


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
            url = self._stack.enter_context(running_service(self._folder / "data", self._models_dir))
            self._client = self._stack.enter_context(Client(url))
        return self._client

    def upload(self, name: str, rows: Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
        """Return the dataset."""
        path = self._folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return self.client.datasets.upload(path, **fields)

    def train(self, name: str, **fields: Any) -> Job:
        """Run a job to its end, or wait for the one that an earlier run has begun. Exits where it fails."""
        note = self._folder / f"{name}.job"
        if not note.exists():
            job = self.client.jobs.submit(name=name, **({"validation_fraction": 0} | fields))
            note.write_text(job["id"], encoding="utf-8")
        job = self.client.jobs.wait(note.read_text(encoding="utf-8"), poll_seconds=1.0)
        if job["status"] != "succeeded":
            note.unlink()
            raise SystemExit(f"{name}: {job['id']} ended as {job['status']}: {job['error']}")
        return job

    def forget(self, name: str) -> None:
        """Delete a job whose policies have been evaluated."""
        note = self._folder / f"{name}.job"
        self.client.jobs.delete(note.read_text(encoding="utf-8"))
        note.unlink()

    def policy(self, job_id: str, folder: Path) -> Path:
        """Download a job's policy, once."""
        if not folder.exists():
            unfinished = folder.with_name(folder.name + ".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            self.client.jobs.download(job_id, unfinished)
            unfinished.rename(folder)
        return folder

    def checkpoints(self, job: Job, folder: Path) -> Iterator[tuple[int, Path]]:
        """Yield step and policy of each checkpoint before the job's end; the folder is there until the next one."""
        last = job["results"]["step"]
        for item in reversed(self.client.jobs.checkpoints(job["id"])):
            if item["archive_url"] is None or item["step"] >= last:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            self.client.jobs.download_checkpoint(job["id"], item["id"], folder)
            yield item["step"], folder
        shutil.rmtree(folder, ignore_errors=True)


def every(num_rows: int, batch_size: int, epochs: int, num_points: int) -> int:
    """Return the distance between the checkpoints of a job that is to be evaluated so often, in steps."""
    steps = epochs * math.ceil(num_rows / batch_size)
    return max(1, math.ceil(steps / num_points))
