"""Databases that go back in time under live workers, a few of each; fifty of each: `make test-failover`."""

from collections.abc import Iterator

import pytest
from faults.grounds import Grounds
from faults.share import run_share

pytestmark = pytest.mark.timeout(600)  # on a busy machine


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    with Grounds.open() as opened:
        yield opened


def test_a_sqlite_file_put_back(grounds: Grounds) -> None:
    run_share(grounds, "put-back-sqlite", (5, 6, 11), at_least=3)


def test_a_postgresql_database_put_back(grounds: Grounds) -> None:
    run_share(grounds, "put-back-postgresql", (2, 3), at_least=2)


def test_a_lagging_replica_promoted(grounds: Grounds) -> None:
    run_share(grounds, "promoted-replica", (3, 4, 11), at_least=3)
