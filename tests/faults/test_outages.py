"""Zombies, races, outages, full disks, storms and drains, a few of each; many: `make test-faults`."""

from collections.abc import Iterator

import pytest
from faults.share import run_share
from faults.world import Grounds


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    with Grounds.open() as opened:
        yield opened


@pytest.mark.parametrize(
    ("row", "seeds", "at_least"),
    [
        ("zombies", (0, 1, 2, 3), 3),
        ("races", range(10), 100),
        ("broker", (0, 1, 6, 7), 4),
        ("database", (2,), 1),
        ("store", (0, 1, 3, 4, 5), 5),
        ("disks", (0, 1, 2, 3), 4),
        ("storms", (0, 1), 100),
        ("drains", (0,), 3),
    ],
)
def test_a_share_of(grounds: Grounds, row: str, seeds: tuple[int, ...], at_least: int) -> None:
    run_share(grounds, row, seeds, at_least)
