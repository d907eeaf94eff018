"""Schemas of `/workers` and `/storage`."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.schemas.base import Answer, Id, Page
from api.schemas.usage import Disk, StoredBytes

ProcessKind = Literal["worker", "api"]
ProcessState = Literal["working", "waiting", "idle", "up", "silent"]


class WorkedOn(Answer):
    id: Id
    project_id: Id
    attempt: int = Field(description="Number of the attempt.")
    stage: str | None = Field(description="The stage that runs; null before the first.")
    step: int = Field(description="Optimizer steps taken in the stage.")
    total_steps: int = Field(description="Optimizer steps of the stage.")
    tokens_per_second: float | None = Field(description="Tokens a second, as last reported.")
    nodes: int = Field(description="Workers that train it together.")
    node: int | None = Field(description="This worker's number among them; null while it waits for the others.")


class Worker(Answer):
    id: str = Field(description="Its name, a worker's the owner of its leases; kind and number for a project's admins.")
    kind: ProcessKind = Field(description="A worker, or an API process.")
    state: ProcessState = Field(
        description="`silent`: no sign of life for a minute; `waiting`: for other workers; `up`: an API process."
    )
    host: str | None = Field(description="Its machine; null for admins of a project.")
    version: str | None = Field(description="Of the service; null for admins of a project.")
    device: str | None = Field(description="What it trains on; null for an API process.")
    num_devices: int = Field(description="Devices that train one job together.")
    lanes: str | None = Field(description="`all`, `training` or `light`; null for an API process.")
    takes_nodes: bool = Field(description="Whether it takes jobs on several nodes, as one of their workers.")
    created_at: datetime = Field(description="Its start.")
    seen_at: datetime | None = Field(description="Last sign of life; null for workers of version 0.1.0.")
    clock_offset_seconds: float | None = Field(
        description="Its clock minus the database's; null for a project's admins."
    )
    disks: list[Disk] = Field(description="The disks that it writes to; empty for admins of a project.")
    job: WorkedOn | None = Field(
        description="What it trains or waits for; to admins of a project null for others' jobs."
    )


class ProjectQueue(Answer):
    project_id: Id
    num_queued: int = Field(description="Jobs that wait.")
    num_running: int = Field(description="Jobs that run.")
    oldest_queued_seconds: float = Field(description="Age of the oldest job that waits; 0 without one.")


class Workers(Page[Worker]):
    """All processes of the last day, workers first; one page."""

    queue: list[ProjectQueue] = Field(description="Projects with jobs that wait or run; for admins their own.")


class ProjectStorage(Answer):
    id: Id
    stored_bytes: int = Field(description="Bytes of everything together, as the quota counts them.")
    stored: StoredBytes = Field(description="The same by what takes them.")
    max_stored_bytes: int | None = Field(description="What it may store; null: as much as there is.")
    created_at: datetime = Field(description="When the project was made.")


class Storage(Page[ProjectStorage]):
    """Projects by id."""

    num_lost_objects: int | None = Field(
        description="Objects that the store is known to have lost; null for admins of a project."
    )
