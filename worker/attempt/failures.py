"""Failures to begin an attempt."""

from core.domain.jobs.failure_codes import FailureCode


class StagingFailed(Exception):
    """Raised for a job that cannot be staged anywhere. `detail` is for the user."""

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
