"""Requests for scores of jobs that the real trainer has made, answered by a light lane."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backends import PROJECT
from toy_jobs import await_end

from core.services.backend import Backend
from core.services.requests import scores
from worker.drain import Drain
from worker.light.lane import LightLane
from worker.light.scores import Scoring
from worker.scratch import WorkerScratch

SECONDS = 200


def ask(backend: Backend, job_id: str, **request: Any) -> list[dict[str, Any]]:
    asked = scores.create(backend, PROJECT, job_id, request)
    answer = await_end(lambda: scores.get(backend, PROJECT, job_id, asked.id), SECONDS)
    assert answer.status == "succeeded", answer
    assert answer.results is not None
    return answer.results


@contextmanager
def light_lane(backend: Backend) -> Iterator[None]:
    drain, scratch = Drain(5), WorkerScratch(backend.settings.scratch_dir)
    lane = LightLane(backend, drain, scratch, 1, [Scoring()])
    lane.start()
    try:
        yield
    finally:
        drain.begin()
        lane.join()
        scratch.close()
