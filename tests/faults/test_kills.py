"""`kill -9` at random moments and at a third of the failpoints; all of them: `make test-faults`."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import api_kills, kills
from faults.grounds import Grounds
from faults.share import run_share

ROOT = Path(__file__).resolve().parents[2]
OF_THE_ENGINE = {"directory.renamed", "directory.written"}
"""Struck by the runs of the real trainer."""
SHARE = [
    seed
    for seed, (number, point, _) in enumerate(kills.SETTINGS)
    if kills.POINTS.index(point) % 3 == 0 and number == kills.POINTS.index(point) // 3 % 2
]
"""A third of the points, first and last pass, in turn on SQLite with a directory and on PostgreSQL with S3."""


pytestmark = pytest.mark.timeout(600)  # on a busy machine


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    with Grounds.open() as opened:
        yield opened


def test_every_failpoint_of_the_code_is_struck_by_some_run() -> None:
    sources = [path for package in ("api", "core", "worker") for path in (ROOT / package).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r'\breach\("([a-z_.]+)"\)', path.read_text())}
    assert named == {*kills.POINTS, *api_kills.POINTS} | OF_THE_ENGINE
    assert len(named) >= 25


def test_killed_at_random_moments(grounds: Grounds) -> None:
    run_share(grounds, "kills", (0, 1, 2), at_least=8)


def test_killed_at_failpoints(grounds: Grounds) -> None:
    assert len(SHARE) * 3 >= 2 * len(kills.POINTS) - 2
    run_share(grounds, "failpoints", SHARE, at_least=len(SHARE) // 2)


def test_an_api_killed_between_commit_and_answer(grounds: Grounds) -> None:
    run_share(grounds, "requests", (1, 2, 4, 7, 10), at_least=5)
