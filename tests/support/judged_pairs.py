"""Judgements that the lane of a worker makes, in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backends import PROJECT
from toy_jobs import wait_for

from core.domain.judging.judgements import JudgementRequest
from core.services.backend import Backend
from core.services.judgements import judgements
from core.services.judgements.judgements import JudgementView
from worker.drain import Drain
from worker.light.judging import JUDGEMENTS
from worker.light.lane import LightLane
from worker.scratch import WorkerScratch

SECONDS = 60


@contextmanager
def judging_lane(backend: Backend) -> Iterator[None]:
    drain, scratch = Drain(5), WorkerScratch(backend.settings.scratch_dir)
    working = LightLane(backend, drain, scratch, 1, [JUDGEMENTS], name="judgements")
    working.start()
    try:
        yield
    finally:
        drain.begin()
        working.join()
        scratch.close()


def ask(backend: Backend, judge: dict[str, Any], **fields: Any) -> JudgementView:
    body = {"dataset_id": "ds_1", "judge": judge} | fields
    return judgements.create(backend, PROJECT, JudgementRequest.model_validate(body))


def judged(backend: Backend, judge: dict[str, Any], **fields: Any) -> JudgementView:
    """A judgement of `ds_1`, once it has succeeded."""
    asked = ask(backend, judge, **fields)

    def look() -> JudgementView:
        return judgements.get(backend, PROJECT, asked.id)

    with judging_lane(backend):
        wait_for(lambda: look().finished_at is not None, "the verdicts", SECONDS)
    found = look()
    assert found.status == "succeeded", found
    return found
