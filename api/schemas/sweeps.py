"""Schemas of `/sweeps`; the requests are in `core.domain.sweeps`."""

from datetime import datetime
from typing import Any

from pydantic import Field

from api.schemas.base import Answer, Id
from api.schemas.estimates import Interval
from core.domain.sweeps import SweepStatus


class SweepRung(Answer):
    step: int | None = Field(description="Step of the last training stage at which it was compared.")
    value: float | None = Field(description="Held-out `metric` there; null where there was none.")


class SweepHalving(Answer):
    eta: int = Field(description="Of the members that come to a rung the best 1/eta go on, rounded up.")
    rungs: list[float] = Field(
        description="Shares of their steps at whose next evaluation members pause and are compared."
    )


class SweepMember(Answer):
    position: int = Field(description="From 1, in the order of the request.")
    job_id: str = Field(description="Its job; there is none while it is `waiting`.")
    status: str = Field(
        description="Status of its job; `waiting` before it is queued, `refused` where it could not be, `deleted`."
    )
    overrides: dict[str, Any] = Field(description="Its settings, by their place in the body of `POST /jobs`.")
    value: float | None = Field(description="Held-out `metric` of its published policy; null before.")
    error: str | None = Field(description="Why it was refused; else null.")
    is_dropped: bool = Field(description="Successive halving goes on without it: its job is cancelled at its rung.")
    rungs: list[SweepRung] = Field(description="Its figures at the rungs that were decided, in order.")


class Sweep(Answer):
    id: Id
    name: str | None = Field(description="A name to recognise it by.")
    status: SweepStatus = Field(description="`finished` once every member has ended; it and `cancelled` are final.")
    metric: str = Field(description="Held-out metric that the best member is chosen by.")
    max_parallel: int = Field(description="Members that are queued or running at most at a time.")
    num_members: int = Field(description="Number of members.")
    counts: dict[str, int] = Field(description="Members by status.")
    halving: SweepHalving | None = Field(description="Rungs of successive halving; null: all train to their end.")
    best_job_id: str | None = Field(description="The best member so far; null without held-out rows.")
    no_best_reason: str | None = Field(description="Why no member can be the best; null where one can.")
    members: list[SweepMember] = Field(description="All members, in order.")
    requested: dict[str, Any] = Field(description="The request as sent.")
    metadata: dict[str, str] = Field(description="Strings of yours.")
    created_at: datetime = Field(description="RFC 3339, UTC.")
    finished_at: datetime | None = Field(description="When the last member ended, RFC 3339, UTC; null before.")


class SweepPreview(Answer):
    """The jobs that would result, and what they would take together."""

    num_members: int = Field(description="Number of jobs.")
    members: list[dict[str, Any]] = Field(description="The settings of each.")
    seconds: Interval | None = Field(description="Time of all on the workers that are alive; null where not measured.")
    peak_memory_bytes: int | None = Field(description="The most that one of them takes.")
    num_shared: dict[str, int] = Field(description="By stage, members that take over what another one has computed.")
    num_workers: int = Field(description="Workers that train and are alive.")
    reason: str | None = Field(description="Why there is no time; null where there is one.")
    rungs: list[float] = Field(
        description="Shares of their steps at which members are compared; empty: all train to their end."
    )
    work_share: float = Field(
        description="Steps of the last training stage that all take together, as a share of those without rungs."
    )
    no_best_reason: str | None = Field(description="Why no member can be the best; null where one can.")
