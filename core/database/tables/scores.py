"""Table of requests for implicit rewards."""

from sqlalchemy.orm import Mapped

from core.database.tables.base import Base, JsonObject
from core.database.tables.requests import LeasedRequest, leased_request_rules


class ScoreRequest(LeasedRequest, Base):
    __tablename__ = "score_requests"
    __table_args__ = leased_request_rules()

    request: Mapped[JsonObject]
    """`items` or `pairs`, as sent."""
    results: Mapped[JsonObject]
    """`results`, once succeeded."""
