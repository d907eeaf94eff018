from sqlite3 import OperationalError as SqliteError

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from core.database.engine import parse_url
from core.database.session import is_outage, is_transient
from core.settings import SettingsError


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgresql://u:p@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg"),
        ("sqlite:////data/x.db", "sqlite+pysqlite"),
    ],
)
def test_urls_of_both_databases(given: str, driver: str) -> None:
    assert parse_url(given).drivername == driver


@pytest.mark.parametrize(
    "given", ["mysql://h/d", "sqlite://", "sqlite:///:memory:", "nonsense", "postgresql+asyncpg://h/d"]
)
def test_other_urls_stop_the_start(given: str) -> None:
    with pytest.raises(SettingsError, match="PREFTUNE_DATABASE_URL"):
        parse_url(given)


class Answer(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("sqlstate", "transient"),
    [
        ("40001", True),
        ("40P01", True),
        ("08006", True),
        ("57P01", True),
        ("55P03", True),
        ("42P01", False),
        ("53100", False),
    ],
)
def test_what_postgresql_says_decides_what_is_worth_another_try(sqlstate: str, transient: bool) -> None:
    error = OperationalError("SELECT", {}, Answer(sqlstate))
    assert is_transient(error) is transient
    assert is_outage(error)


@pytest.mark.parametrize(
    ("message", "transient"),
    [
        ("database is locked", True),
        ("disk I/O error", True),
        ("no such table: x", False),
        ("database or disk is full", False),
    ],
)
def test_what_sqlite_says_decides_what_is_worth_another_try(message: str, transient: bool) -> None:
    assert is_transient(OperationalError("SELECT", {}, SqliteError(message))) is transient


def test_a_broken_rule_is_no_outage_and_a_full_pool_is() -> None:
    assert not is_outage(IntegrityError("INSERT", {}, Answer("23505")))
    assert is_outage(PoolTimeout("full"))
    assert not is_transient(PoolTimeout("full"))
