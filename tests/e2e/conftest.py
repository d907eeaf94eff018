from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, serve
from browser import chromium
from deployments import Servers
from playwright.sync_api import Browser
from servers import run_postgresql, run_redis, run_s3


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    """One server for the tests of a module: no key, this machine only."""
    with serve(Path(tmp_path_factory.mktemp("api"))) as running:
        yield running


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """PostgreSQL, SeaweedFS and Redis, for whoever starts processes on them."""
    with run_postgresql() as postgresql, run_s3() as s3, run_redis() as redis:
        yield Servers(postgresql=postgresql, s3=s3, redis=redis)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For modules that run no event loop of their own: the driver keeps one running."""
    with chromium() as running:
        yield running
