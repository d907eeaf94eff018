from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base, Id, ShortText, Time


class Project(Base):
    """A project, the boundary of rows, object keys and reuse of stages."""

    __tablename__ = "projects"

    id: Mapped[Id] = mapped_column(primary_key=True)
    name: Mapped[ShortText]
    created_at: Mapped[Time]
