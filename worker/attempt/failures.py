"""Why an attempt cannot begin."""

from core.domain.failure_codes import FailureCode


class StagingFailed(Exception):
    """The job cannot be staged, here or anywhere. `detail` is for the user."""

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
