"""Schemas of `/usage`."""

from pydantic import Field

from api.schemas.base import Answer, Id


class StoredBytes(Answer):
    """What the project's bytes are."""

    datasets: int = Field(description="Bytes of datasets, as uploaded and as normalised rows.")
    uploads: int = Field(description="Bytes that open uploads have announced.")
    arriving: int = Field(description="Bytes of bodies that are being received.")
    checkpoints: int = Field(description="Bytes of resumable states.")
    policies: int = Field(description="Bytes of checkpoints' policies.")
    artifacts: int = Field(description="Bytes of published policies, their exports and reports.")
    stage_outputs: int = Field(description="Bytes of stage outputs, kept so that other jobs can start from them.")


class LargeThing(Answer):
    id: Id
    num_bytes: int = Field(description="Bytes that deleting it gives back, shared ones included.")


class Limits(Answer):
    """Null: as much as there is."""

    max_stored_bytes: int | None = Field(description="Bytes of everything together.")
    max_upload_bytes: int | None = Field(description="Bytes of one file.")
    max_queued_jobs: int | None = Field(description="Jobs that wait.")
    max_running_jobs: int | None = Field(description="Jobs that run; more wait.")
    max_requests_per_minute: int | None = Field(description="Requests with one key.")


class Disk(Answer):
    what: str = Field(description="`data`: database and scratch space; `objects`: a store in a folder.")
    free_bytes: int = Field(description="Bytes free.")
    reserve_bytes: int = Field(description="Bytes below which nothing new is taken in.")


class Usage(Answer):
    project_id: Id
    stored_bytes: int = Field(description="Bytes of everything together, as the quota counts them.")
    stored: StoredBytes = Field(description="The same by what takes them.")
    largest: list[LargeThing] = Field(description="At most five datasets, open uploads and jobs, the largest first.")
    limits: Limits = Field(description="What the project may take.")
    num_queued: int = Field(description="Jobs that wait.")
    num_running: int = Field(description="Jobs that run.")
    disks: list[Disk] | None = Field(None, description="The service's disks; for operators only, absent for others.")
