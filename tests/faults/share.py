"""The share of the table of faults that `make test` runs."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from faults.grounds import Grounds
from faults.rows import ROWS
from faults.volume import run_one


def run_share(grounds: Grounds, name: str, seeds: Sequence[int], at_least: int) -> None:
    """So many kills, races, …, and no violation."""
    row = ROWS[name]
    with ThreadPoolExecutor(row.num_parallel) as pool:
        outcomes = list(pool.map(lambda seed: run_one(grounds, row, seed), seeds))
    broken = [f"--seed {one.seed} ({one.setting}): {fault}" for one in outcomes for fault in one.violations]
    assert not broken, "\n".join(broken)
    assert sum(outcome.count for outcome in outcomes) >= at_least
