"""Column types and the database's clock, the same on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import JSON, DateTime, Double, Enum, String, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

_SQLITE_FORMAT = "%Y-%m-%d %H:%M:%f"
"""Milliseconds with a fixed number of digits, so that texts compare as times do."""

EnumT = TypeVar("EnumT", bound=StrEnum)

Json = JSON().with_variant(JSONB(), "postgresql")


class Timestamp(TypeDecorator[datetime]):
    """An aware UTC time: on SQLite a text of fixed width, on PostgreSQL `timestamptz`."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(23))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if dialect.name == "sqlite":
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        assert isinstance(value, datetime)
        return value.astimezone(UTC)


def enum_type(values: type[EnumT], name: str, *, is_checked: bool = True) -> Enum:
    """Column type of the members' values as text, under a CHECK unless the list grows with features."""
    return Enum(
        values,
        name=name,
        native_enum=False,
        create_constraint=is_checked,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


class database_now(FunctionElement[datetime]):
    """The database's own time, the only clock that leases use."""

    type = Timestamp()
    inherit_cache = True
    name = "database_now"


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    return f"strftime('{_SQLITE_FORMAT}', 'now')"


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    # Not now(), which stands still in a transaction that has waited for a lock.
    return "statement_timestamp()"


class database_after(FunctionElement[datetime]):
    """Return the database's time plus a number of seconds."""

    type = Timestamp()
    inherit_cache = True
    name = "database_after"


@compiles(database_after, "sqlite")
def _sqlite_after(element: database_after, compiler: SQLCompiler, **kw: Any) -> str:
    return f"strftime('{_SQLITE_FORMAT}', 'now', printf('%.3f seconds', {compiler.process(element.clauses, **kw)}))"


@compiles(database_after, "postgresql")
def _postgresql_after(element: database_after, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"(statement_timestamp() + make_interval(secs => CAST({seconds} AS double precision)))"


class seconds_since(FunctionElement[float]):
    """Return the seconds from a time to the database's now."""

    type = Double()
    inherit_cache = True
    name = "seconds_since"


@compiles(seconds_since, "sqlite")
def _sqlite_since(element: seconds_since, compiler: SQLCompiler, **kw: Any) -> str:
    return f"((julianday('now') - julianday({compiler.process(element.clauses, **kw)})) * 86400.0)"


@compiles(seconds_since, "postgresql")
def _postgresql_since(element: seconds_since, compiler: SQLCompiler, **kw: Any) -> str:
    start = compiler.process(element.clauses, **kw)
    return f"CAST(extract(epoch FROM statement_timestamp() - {start}) AS double precision)"


class json_text(FunctionElement[str]):
    """Return the text under a key of a JSON object; the key may hold any character."""

    type = String()
    inherit_cache = True
    name = "json_text"


@compiles(json_text, "sqlite")
def _sqlite_json_text(element: json_text, compiler: SQLCompiler, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"(SELECT value FROM json_each({column}) WHERE key = {key})"


@compiles(json_text, "postgresql")
def _postgresql_json_text(element: json_text, compiler: SQLCompiler, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"jsonb_extract_path_text({column}, {key})"
