# mypy: ignore-errors
"""Runs on the code of the first release (7b06ab9), never on this tree's: makes its data, then works on as its worker.

`python released_peer.py <folder> <database url>`; one command a line on stdin, one JSON answer a line on stdout.
"""

import json
import sys
from pathlib import Path
from typing import Any

from backends import PROJECT, checkpoint_with_policy, claim, make_backend, point, publication, submit
from core.domain.job_spec import JobSpec

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.session import Database
from core.services import attempts, datasets, jobs, recording

ROWS = [{"prompt": f"p{number}", "chosen": "yes", "rejected": "no"} for number in range(24)]


class Peer:
    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        upgrade(url)
        self._backend = make_backend(folder, Database(open_engine(url)))
        self._claims: list[Any] = []

    def make(self) -> dict[str, str]:
        """One dataset, and jobs in every state; those that ran have a checkpoint and its policy."""
        path = self._folder / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        made = datasets.create(self._backend, PROJECT, datasets.Upload(path=path, filename="pairs.jsonl"))
        made_jobs = {"dataset": made.id}
        for name in ("done", "vanished", "running"):
            made_jobs[name] = submit(self._backend, dataset_id=made.id).id
            held = claim(self._backend, name)
            attempts.begin(self._backend, held)
            recording.record_points(self._backend, held, [point(1)])
            checkpoint_with_policy(self._backend, held, 1, {"model.safetensors": b"weights"})
            if name == "done":
                attempts.finish_succeeded(self._backend, held, publication(self._backend, held))
            self._claims = [held]
        made_jobs["paused"] = submit(self._backend, dataset_id=made.id, lora={}).id
        jobs.pause(self._backend, PROJECT, made_jobs["paused"])
        made_jobs["queued"] = submit(self._backend, dataset_id=made.id, sft="skip", early_stopping={}).id
        return made_jobs

    def finish(self) -> dict[str, str]:
        """End the job that it holds."""
        held = self._claims.pop()
        attempts.heartbeat(self._backend, held)
        attempts.finish_succeeded(self._backend, held, publication(self._backend, held))
        return {"job": held.job_id}

    def take(self) -> dict[str, str]:
        """Claim the next job, and read its settings as strictly as the release does."""
        held = claim(self._backend, "released")
        JobSpec.model_validate(held.spec)
        attempts.begin(self._backend, held)
        checkpoint_with_policy(self._backend, held, 2, {"model.safetensors": b"more"})
        self._claims.append(held)
        return {"job": held.job_id}


def main() -> None:
    peer = Peer(Path(sys.argv[1]), sys.argv[2])
    for line in sys.stdin:
        sys.stdout.write(json.dumps(getattr(peer, line.strip())()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
