"""Long files first, so that no process is left alone with one at the end; and quick collection."""

import gc
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SECONDS = {
    "faults/test_kills.py": 100,
    "faults/test_outages.py": 90,
    "integration/test_worker_trains.py": 90,
    "integration/test_worker_reuses.py": 60,
    "faults/test_serve.py": 45,
    "faults/test_worker_process.py": 27,
    "faults/test_going_back.py": 27,
    "faults/test_supervisor.py": 19,
    "integration/test_bench_gpu.py": 18,
    "integration/test_worker_scores.py": 15,
    "integration/test_migrations.py": 15,
    "integration/test_republishing.py": 15,
    "integration/test_worker_brokers.py": 14,
}
"""Processor time of the longest files, as measured; the others are taken as `_OTHERS` says, by their folder."""
_OTHERS = {"faults": 12, "upgrade": 11, "e2e": 10, "numerics": 9, "integration": 8, "contract": 7, "architecture": 6}

gc.disable()  # collecting garbage is half of the time of importing the tests, in every process of pytest-xdist


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: -_seconds(item.path))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def _seconds(path: Path) -> float:
    name = path.relative_to(TESTS)
    return SECONDS.get(str(name), _OTHERS.get(name.parts[0], 0))
