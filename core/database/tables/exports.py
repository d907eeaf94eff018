"""Table of requests for the policy in another format."""

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, JsonObject, LongText
from core.database.tables.requests import LeasedRequest, leased_request_rules
from core.domain.exports import ExportFormat


class ExportRequest(LeasedRequest, Base):
    __tablename__ = "export_requests"
    __table_args__ = (*leased_request_rules(), Index(None, "prefix"))

    format: Mapped[ExportFormat] = mapped_column(enum_type(ExportFormat, "format", is_checked=False))
    prefix: Mapped[LongText | None]
    """Prefix of the file in the store, once succeeded."""
    verification: Mapped[JsonObject]
    """How it was read back, once succeeded; may be empty."""
