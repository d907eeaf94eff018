"""Workers of one lane: one trains and leaves scores to others, one scores and leaves jobs to others."""

import signal
from pathlib import Path

from backends import PROJECT
from toy_jobs import PATIENCE_SECONDS, WorkerProcess, await_end, submit_toy, view, wait_for_status
from toy_trainer import Script

from core.services.backend import Backend
from core.services.jobs import artifacts
from core.services.requests import scores
from core.services.requests.scores import ScoreView

QUICK = {"poll_seconds": 0.2, "device": "cpu"}


def ask(backend: Backend, job_id: str) -> str:
    return scores.create(backend, PROJECT, job_id, {"items": [{"prompt": "p", "response": "r"}]}).id


def look(backend: Backend, job_id: str, score_id: str, wait_seconds: float = 0) -> ScoreView:
    return await_end(lambda: scores.get(backend, PROJECT, job_id, score_id), wait_seconds)


def test_each_lane_leaves_the_others_work(backend: Backend, tmp_path: Path) -> None:
    with WorkerProcess(backend, tmp_path / "training.log", worker_lanes="training", **QUICK):
        finished = submit_toy(backend, Script())
        wait_for_status(backend, finished, "succeeded")
        asked = ask(backend, finished)
        wait_for_status(backend, submit_toy(backend, Script(steps=40), reuse=False), "succeeded")
    assert look(backend, finished, asked).status.value == "queued"
    # No policy to load: that would take a process with torch, and say nothing more of lanes.
    backend.store.put_bytes(artifacts.get(backend, PROJECT, finished).files[0].key, b"other bytes")

    with WorkerProcess(backend, tmp_path / "light.log", worker_lanes="light", **QUICK) as light:
        queued = submit_toy(backend, Script(), reuse=False)
        answer = look(backend, finished, asked, PATIENCE_SECONDS)
        assert answer.status.value == "failed", "taken, and found to be damaged"
        assert view(backend, queued).status.value == "queued"
        light.send(signal.SIGTERM)
        assert light.wait() == 0
