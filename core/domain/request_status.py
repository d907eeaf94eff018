"""State of a request to a finished job (scores, exports)."""

from enum import StrEnum


class RequestStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
