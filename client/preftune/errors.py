"""Exceptions of the client.

PreftuneError
├── ApiError           the service answered with a problem
├── InvalidAddress     the address of the service is none
├── ConnectionFailed   no answer, after bounded retries
├── UploadInterrupted  a file in parts did not get through whole; it can go on
├── ScoringFailed      the scores asked for cannot be had
├── ExportFailed       the policy cannot be had in that format
└── DownloadFailed     what came is not what the manifest says
"""

from typing import Any


class PreftuneError(Exception):
    """Base of all errors of this client."""


class ApiError(PreftuneError):
    """A problem document (RFC 9457). `str()` is the text to show a person."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.code: str = str(problem.get("code", "unknown"))
        self.title: str = str(problem.get("title", ""))
        self.detail: str = str(problem.get("detail", ""))
        self.errors: list[dict[str, str]] = list(problem.get("errors", []))
        """`pointer` into the body and `detail`, one for each fault."""
        self.request_id: str | None = problem.get("request_id")
        self.problem = problem
        super().__init__(self._sentence())

    def told(self, detail: str, faults: list[str]) -> str:
        """Return `detail` and `faults` as one text without saying anything twice; `faults`: `errors` in words."""
        is_summary = bool(self.errors) and str(self.errors[0].get("detail", "")) in self.detail
        if is_summary and len(faults) == 1:
            return faults[0]
        head = self.title if is_summary else detail or self.title
        return "\n".join([head or f"The service answered {self.status}", *(f"  {fault}" for fault in faults)])

    def _sentence(self) -> str:
        return self.told(
            self.detail, [": ".join(filter(None, (error.get("pointer"), error.get("detail")))) for error in self.errors]
        )


class InvalidAddress(PreftuneError):
    """Raised for a base URL that is not one; `str()` says what it lacks."""


class ConnectionFailed(PreftuneError):
    """Raised when the service could not be reached."""


class ScoringFailed(PreftuneError):
    """Raised when the service could not compute the requested scores; `str()` says why."""


class ExportFailed(PreftuneError):
    """Raised when the service could not export the policy; `str()` says why."""


class RepublishFailed(PreftuneError):
    """The service could not publish the policy again; `str()` says why."""


class DownloadFailed(PreftuneError):
    """Raised when a downloaded file does not have the announced size or SHA-256."""


class UploadInterrupted(PreftuneError):
    """Raised when only some parts arrived; call again with `upload_id` to send the rest."""

    def __init__(self, upload_id: str, cause: PreftuneError) -> None:
        self.upload_id = upload_id
        super().__init__(f"{cause}\nThe parts that arrived are kept for a day; continue with upload {upload_id}.")
