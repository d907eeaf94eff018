"""Table of requests to publish a policy again from its adapter and base model."""

from sqlalchemy.orm import Mapped

from core.database.tables.base import Base, JsonObject
from core.database.tables.requests import LeasedRequest, leased_request_rules


class RepublishRequest(LeasedRequest, Base):
    __tablename__ = "republish_requests"
    __table_args__ = leased_request_rules()

    outcome: Mapped[JsonObject]
    """Sums of both manifests and what was verified, once succeeded; empty before."""
