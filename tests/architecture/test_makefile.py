"""The Makefile's recipes are shell: each target as `make -n` prints it is read by bash, without running it."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = sorted(
    set(re.findall(r"^([a-z][a-z-]*)\s*:(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
)


@pytest.mark.parametrize("target", TARGETS)
def test_recipe_is_shell(target: str) -> None:
    """A variable that was lost on the way (`0BIN)/pytest`) is a fault of syntax."""
    printed = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    done = subprocess.run(["bash", "-n"], input=printed.stdout, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
