"""A process that holds secrets cannot be read by what it starts, which runs as the same user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARENT = """
import ctypes, os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from core.private_memory import forbid_reading
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # a change of user has closed it already
if sys.argv[2] == "private":
    forbid_reading()
child = "import os; print('SECRET' in open(f'/proc/{os.getppid()}/environ').read())"
done = subprocess.run(["python3", "-I", "-c", child], capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
print(done.stdout.strip() or done.stderr.strip().splitlines()[-1].split(":")[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize(("how", "sees"), [("open", "True"), ("private", "PermissionError")])
def test_a_child_does_not_read_its_parents_environment(how: str, sees: str) -> None:
    environment = {**os.environ, "SECRET": "x"}
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(ROOT), how], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == sees
