"""Long files first, so that none is left alone at the end; quick collection and clients; threads that do not spin."""

import gc
import os
import ssl
from collections import defaultdict
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from later_suites import LATER

TESTS = Path(__file__).resolve().parent
SECONDS = {
    "faults/test_outages.py": 94,
    "faults/test_kills.py": 91,
    "clients/test_clients.py": 54,
    "numerics/test_step_zero.py": 49,
    "faults/test_serve.py": 45,
    "numerics/test_resume.py": 37,
    "numerics/test_pipeline.py": 34,
    "contract/test_rounds.py": 28,
    "faults/test_worker_process.py": 27,
    "e2e/test_api_schema.py": 26,
    "faults/test_going_back.py": 26,
    "numerics/test_unpaired.py": 22,
    "e2e/test_dashboard_pages.py": 20,
    "e2e/test_whole_job.py": 19,
    "integration/test_worker_trains.py": 18,
    "e2e/test_hosts.py": 18,
    "faults/test_nodes.py": 17,
    "numerics/test_lifted.py": 17,
    "faults/test_supervisor.py": 16,
    "e2e/test_canaries.py": 16,
    "e2e/test_dashboard.py": 15,
    "numerics/test_reward.py": 14,
    "numerics/test_gguf.py": 14,
    "integration/test_restore_drill.py": 13,
}
"""Processor time of the longest files, as measured; the others are taken as `_OTHERS` says, by their folder."""
_OTHERS = {"faults": 12, "upgrade": 11, "e2e": 10, "numerics": 9, "integration": 8, "contract": 7, "architecture": 6}

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch is loaded; more processes than cores wait for each other
gc.disable()  # collecting garbage is half of the time of importing the tests, in every process of pytest-xdist

_authorities = cache(httpx.create_ssl_context)


def _ssl_context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    """Reading the authorities of the world is 25 ms of every HTTP client, for servers on loopback too: done once."""
    if verify is True and cert is None and not os.environ.keys() & {"SSL_CERT_FILE", "SSL_CERT_DIR"}:
        return _authorities()
    return httpx.create_ssl_context(verify, cert, trust_env)


httpx._transports.default.create_ssl_context = _ssl_context


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gone = [name for name in (*SECONDS, *(f"{name}*" for name in LATER)) if not any(TESTS.glob(name))]
    if gone:
        raise pytest.UsageError(f"SECONDS or LATER of the tests name files that are not there: {', '.join(gone)}")
    items.sort(key=lambda item: -_seconds(item.path))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def _seconds(path: Path) -> float:
    if not path.is_relative_to(TESTS):
        return 0
    name = path.relative_to(TESTS)
    return SECONDS.get(str(name), _OTHERS.get(name.parts[0], 0))


SHOWN_FROM_SECONDS = 60
NUM_SHOWN_FILES = 24
_spent: dict[str, float] = defaultdict(float)
"""Processor seconds by file of tests, in the process that reports."""
_spent_by_test: dict[str, float] = defaultdict(float)
_last = [0.0]


def _processor_seconds() -> float:
    """This process's, and those of its children that have ended."""
    return sum(os.times()[:4])


def pytest_runtest_logstart() -> None:
    _last[0] = _last[0] or _processor_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    now = _processor_seconds()
    report.user_properties.append(("processor_seconds", now - _last[0]))
    _last[0] = now
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for name, seconds in report.user_properties:
        if name == "processor_seconds" and isinstance(seconds, float):
            _spent[report.nodeid.partition("::")[0]] += seconds
            _spent_by_test[report.nodeid] += seconds


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what `tests/README.md` and `SECONDS` are written from."""
    folders: dict[str, float] = defaultdict(float)
    for name, seconds in _spent.items():
        folders[Path(name).parts[1] if len(Path(name).parts) > 2 else name] += seconds
    if sum(folders.values()) < SHOWN_FROM_SECONDS:
        return
    terminalreporter.section("processor seconds")
    for title, counts in (("folders", folders), ("files", _spent), ("tests", _spent_by_test)):
        longest = sorted(counts.items(), key=lambda item: -item[1])[:NUM_SHOWN_FILES]
        shown = ", ".join(f"{name} {seconds:.0f}" for name, seconds in longest)
        terminalreporter.line(f"{title}: {shown}")
    later = sum(seconds for name, seconds in _spent.items() if name.removeprefix("tests/").startswith(LATER))
    terminalreporter.line(f"all: {sum(_spent.values()):.0f}, of them {later:.0f} in files of LATER (later_suites.py)")
