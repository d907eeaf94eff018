"""What a process of the service loads before it serves: what few requests need would be paid for at every start."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LATER = (
    "alembic",  # where the schema changes
    "boto3",  # for a store behind S3
    "numpy",  # for curves that are longer than asked for
    "pyarrow",  # for Parquet and Arrow
    "torch",  # in processes of its own
    "core.datasets.check.check",  # in the child that checks
    "core.datasets.layouts.registry",
)
"""Modules that are loaded when they are needed."""
LOOK = "import sys, {module}; print(*sorted(set({later}) & set(sys.modules)))"


@pytest.mark.parametrize("module", ["api.server", "worker.app"])
def test_a_start_loads_nothing_that_few_requests_need(module: str) -> None:
    command = [sys.executable, "-c", LOOK.format(module=module, later=LATER)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == []


def test_the_check_of_a_file_loads_no_parser_that_it_does_not_need() -> None:
    later = ("pyarrow", "sqlalchemy", "pydantic", "structlog")
    command = [sys.executable, "-c", LOOK.format(module="core.datasets.check.child", later=later)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == []
