"""Errors of the domain, free of HTTP.

    DomainError
    ├── InvalidRequest        kind "invalid"      what was asked cannot be done as asked
    ├── NotFound              kind "not_found"    there is no such thing (in this project)
    ├── Conflict              kind "conflict"     the thing is in another state
    ├── TooLarge              kind "too_large"    over a documented limit
    ├── UnsupportedMedia      kind "unsupported"  bytes of a kind that is never read
    ├── Forbidden             kind "forbidden"
    ├── Limited               kind "limited"      the project has taken what it may
    ├── OutOfSpace            kind "full"         the service's disk has no room for it; trying again does not help
    ├── Unavailable           kind "unavailable"  a store, database or broker does not answer; try again
    └── Fenced                kind "fenced"       another attempt has taken the job over

Every error carries a stable kebab-case `code` and a sentence for people in `detail`. `api/http/problems.py` maps the
kind to a status; the worker maps it to fail or retry. `detail` is shown to users: no path, secret or traceback in it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

ErrorKind = Literal[
    "invalid",
    "not_found",
    "conflict",
    "too_large",
    "unsupported",
    "forbidden",
    "limited",
    "full",
    "unavailable",
    "fenced",
]


@dataclass(frozen=True)
class FieldError:
    """One fault of a payload: `pointer` is an RFC 6901 JSON pointer into the body, such as `/beta`."""

    pointer: str
    detail: str


class DomainError(Exception):
    """An expected failure, described in words the user can act on."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Something is wrong"
    kind: ClassVar[ErrorKind] = "invalid"

    def __init__(self, detail: str, *, errors: list[FieldError] | None = None, **context: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []
        self.context = context
        """Further members of the problem document, JSON values only."""


class InvalidRequest(DomainError):
    code = "invalid-request"
    title = "The request is not valid"
    kind = "invalid"


class NotFound(DomainError):
    code = "not-found"
    title = "There is no such thing"
    kind = "not_found"


class Conflict(DomainError):
    code = "conflict"
    title = "Not possible in this state"
    kind = "conflict"


class TooLarge(DomainError):
    code = "too-large"
    title = "Over a limit"
    kind = "too_large"


class UnsupportedMedia(DomainError):
    code = "unsupported-media"
    title = "Not a file of this service"
    kind = "unsupported"


class Forbidden(DomainError):
    code = "forbidden"
    title = "Not allowed"
    kind = "forbidden"


class Limited(DomainError):
    code = "limited"
    title = "Over what the project may take"
    kind = "limited"


class OutOfSpace(DomainError):
    code = "out-of-space"
    title = "The service has no room"
    kind = "full"


class Unavailable(DomainError):
    code = "unavailable"
    title = "Not available just now"
    kind = "unavailable"


class Fenced(DomainError):
    code = "fenced"
    title = "Another attempt has taken over"
    kind = "fenced"


Found = TypeVar("Found")


def present(found: Found | None, error: type[NotFound], detail: str) -> Found:
    """Return what was looked for; raises the error where there is none."""
    if found is None:
        raise error(detail)
    return found
