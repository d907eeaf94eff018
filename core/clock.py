"""Clock of this process. Leases are judged by the database's clock (`core.database`), never by this one."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)
