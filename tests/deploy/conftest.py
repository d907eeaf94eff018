import pytest
from deploy.programs import ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what starts other people's programs out of `make test`: `make test-deploy` runs it."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "deploy"):
            item.add_marker(pytest.mark.slow)
