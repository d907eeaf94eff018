"""Common columns of requests that a lane of a worker does: queued, leased, ended."""

from sqlalchemy import CheckConstraint, ForeignKey, Index, false
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Id, LongText, Owned, Time
from core.domain.request_status import RequestStatus


class Leased(Owned):
    """Columns of what a lane does; its constraints are `leased_rules`."""

    status: Mapped[RequestStatus] = mapped_column(enum_type(RequestStatus, "status"))
    error_detail: Mapped[LongText | None]
    num_tries: Mapped[int] = mapped_column(default=0)
    lease_token: Mapped[Id | None]
    """Only who holds it may end the request."""
    lease_expires_at: Mapped[Time | None]
    created_at: Mapped[Time]
    finished_at: Mapped[Time | None]


class Holdable(Leased):
    """Columns of what is done in parts, and may be held between two of them."""

    is_held: Mapped[bool] = mapped_column(default=False, server_default=false())
    """No lane takes it, and the one that has it gives it back after the part under way."""


class LeasedRequest(Leased):
    """Columns of a request to a finished job; its constraints are `leased_request_rules`."""

    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"))


def leased_rules() -> tuple[CheckConstraint | Index, ...]:
    return (
        CheckConstraint("(status = 'running') = (lease_token IS NOT NULL)", "lease_while_running"),
        CheckConstraint("(lease_token IS NULL) = (lease_expires_at IS NULL)", "lease_is_whole"),
        CheckConstraint("(status IN ('succeeded', 'failed')) = (finished_at IS NOT NULL)", "finished"),
        Index(None, "status", "id"),
    )


def leased_request_rules() -> tuple[CheckConstraint | Index, ...]:
    return (*leased_rules(), Index(None, "job_id"))
