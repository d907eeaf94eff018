from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, serve


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    """One server for the tests of a module: no key, this machine only."""
    with serve(Path(tmp_path_factory.mktemp("api"))) as running:
        yield running
