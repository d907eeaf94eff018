"""Environment of a process that computes: memory that does not grow with every new shape of a product."""

import subprocess
import sys
from pathlib import Path

import pytest

from worker.child_environment import trainer_environment

NUM_SHAPES = 512
GROWTH = f"""
import pathlib, torch
torch.set_num_threads(1)
weight, rows = torch.randn(64, 64).bfloat16(), torch.randn({NUM_SHAPES}, 64).bfloat16()
held = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
torch.nn.functional.linear(rows, weight)
before = held()
for count in range(1, {NUM_SHAPES}):
    torch.nn.functional.linear(rows[:count], weight)
print(held() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_does_not_grow_with_every_number_of_tokens(tmp_path: Path) -> None:
    """Libraries keep products of 1,024 shapes by default: 330 MiB for those of this test on a processor with bf16."""
    environment = trainer_environment(tmp_path, num_threads=1)
    found = subprocess.run(
        [sys.executable, "-c", GROWTH], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert int(found.stdout) < 160 * 2**20
