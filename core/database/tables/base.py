"""Declarative base with one naming convention, so that migrations can name every constraint."""

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import BigInteger, Double, ForeignKey, MetaData, String, Table, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.database.columns import Json, Timestamp

Id = Annotated[str, mapped_column(String(64))]
ShortText = Annotated[str, mapped_column(String(255))]
LongText = Annotated[str, mapped_column(Text)]
Digest = Annotated[str, mapped_column(String(64))]
"""SHA-256 in hexadecimal."""
JsonObject = Annotated[dict[str, Any], mapped_column(Json)]
Time = Annotated[datetime, mapped_column(Timestamp)]
BigInt = Annotated[int, mapped_column(BigInteger)]
Number = Annotated[float, mapped_column(Double)]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Owned:
    """Columns of what belongs to a project."""

    id: Mapped[Id] = mapped_column(primary_key=True)
    project_id: Mapped[Id]


class OfProject(Owned):
    """Columns of what keeps its project from being deleted."""

    project_id: Mapped[Id] = mapped_column(ForeignKey("projects.id"))


def rows_of(entity: type[Base]) -> Table:
    """Return the table behind a class: statements on it skip the mapper, slower than a small statement itself."""
    table = entity.__table__
    assert isinstance(table, Table)
    return table
