"""The engine runs where only torch and transformers are installed: `benchmarks/device_check.py`, on the CPU."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BARE = """
import runpy, sys

class Bare:
    def __init__(self, finder):
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent!r} else self._finder.find_spec(name, path, target)

sys.meta_path[:] = [Bare(finder) for finder in sys.meta_path]
sys.argv = ["device_check.py", "--device", "cpu"]
runpy.run_path({script!r}, run_name="__main__")
"""


def needed_by(*distributions: str) -> set[str]:
    """These distributions and what they need, by their own metadata, without extras."""
    found: set[str] = set()
    waiting = list(distributions)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            continue
        found.add(name)
        waiting += [re.split(r"[^A-Za-z0-9._-]", need, maxsplit=1)[0] for need in needs if "extra ==" not in need]
    return found


def absent_modules() -> set[str]:
    """Installed, but not where there is nothing besides torch and transformers."""
    kept = needed_by("torch", "transformers")
    modules = packages_distributions()
    return {
        module
        for module, owners in modules.items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & kept and module not in ("core", "numpy")
    }


@pytest.mark.timeout(480)
def test_it_needs_nothing_but_torch_and_transformers(tmp_path: Path) -> None:
    absent = absent_modules()
    assert {"sqlalchemy", "fastapi", "celery", "boto3", "structlog", "accelerate"} <= absent
    code = BARE.format(absent=sorted(absent), script=str(ROOT / "benchmarks" / "device_check.py"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (lines, done.stderr[-2000:])
    assert lines[-1].startswith("all held")
    assert len([line for line in lines if line.startswith("ok")]) == 18, lines
