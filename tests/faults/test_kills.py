"""`kill -9` at random moments and at a third of the failpoints; all of them: `make test-faults`."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from faults import api_kills, kills
from faults.grounds import Grounds
from faults.real_trainer import REAL
from faults.share import run_share
from faults.world import COMBINATIONS

ROOT = Path(__file__).resolve().parents[2]
SHARE = [
    seed
    for seed, (number, point, _) in enumerate(kills.SETTINGS)
    if kills.POINTS.index(point) % 3 == 0 and number == kills.POINTS.index(point) // 3 % 2
]
"""A third of the points, first and last pass, in turn on SQLite with a directory and on PostgreSQL with S3."""

OF_THEIR_OWN = (
    ROOT / "tests" / "contract" / "test_arenas.py",
    ROOT / "tests" / "integration" / "test_worker_generations.py",
    ROOT / "tests" / "faults" / "test_nodes.py",
    ROOT / "tests" / "contract" / "test_judgements.py",
    ROOT / "tests" / "contract" / "test_rounds.py",
    ROOT / "tests" / "contract" / "test_sweep_halving.py",
    ROOT / "tests" / "contract" / "test_sweeps.py",
    ROOT / "tests" / "integration" / "test_restore_drill.py",
)
"""Tests that strike points which no job of a fault run reaches."""

pytestmark = pytest.mark.timeout(600)  # on a busy machine


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    with Grounds.open() as opened:
        yield opened


def test_every_failpoint_of_the_code_is_struck_by_some_run() -> None:
    sources = [path for package in ("api", "core", "worker") for path in (ROOT / package).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r'\breach\("([a-z_.]+)"\)', path.read_text())}
    elsewhere = {
        name
        for path in OF_THEIR_OWN
        for name in re.findall(
            r'"((?:arena|backup|generation|judgement|node|part|rounds|sweep|vote)\.[a-z_]+)"', path.read_text()
        )
    }
    assert named == {*kills.POINTS, *api_kills.POINTS, *REAL.points} | (elsewhere & named)
    assert len(named) >= 25


def test_the_real_trainer_is_struck_at_every_point_and_everywhere() -> None:
    settings = kills.settings_of(REAL)
    points = [point for _, point, _ in settings]
    assert sorted(points) == sorted({*kills.POINTS, *REAL.points} - kills.OF_REFUSALS)
    assert {(number, is_last) for number, _, is_last in settings[:20]} == set(product(range(4), (False, True)))
    assert all(COMBINATIONS[number][1] == "local" for number, point, _ in settings if point in kills.OF_LOCAL_STORE)


def test_killed_at_random_moments(grounds: Grounds) -> None:
    run_share(grounds, "kills", (0, 1, 2), at_least=8)


def test_killed_at_failpoints(grounds: Grounds) -> None:
    assert len(SHARE) * 3 >= 2 * len(kills.POINTS) - 2
    run_share(grounds, "failpoints", SHARE, at_least=len(SHARE) // 2)


def test_an_api_killed_between_commit_and_answer(grounds: Grounds) -> None:
    run_share(grounds, "requests", (1, 2, 4, 7, 10), at_least=5)
