"""Checks of uploads load compiled modules, though their process may not write beside the code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
CHECK = """
import sys
from pathlib import Path
from core.datasets.check.check_process import check_in_child
from core.datasets.options import CheckOptions
folder = Path(sys.argv[1])
result = check_in_child(folder.parent / "file.jsonl", CheckOptions(), folder, timeout_seconds=60, memory_bytes=2 << 30)
assert result.num_accepted == 1, result
"""


def test_the_first_check_compiles_for_all_later_ones(tmp_path: Path) -> None:
    code, folder = tmp_path / "code", tmp_path / "check"
    folder.mkdir()
    shutil.copytree(ROOT / "core", code / "core", ignore=shutil.ignore_patterns("__pycache__", "training", "services"))
    (tmp_path / "file.jsonl").write_text('{"prompt": "Why?", "chosen": "Since.", "rejected": "No."}\n')
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", CHECK, folder]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment | {"PYTHONPATH": str(code)}, timeout=120)
    compiled = {path.name.partition(".")[0] for path in code.rglob("core/datasets/check/__pycache__/*.pyc")}
    assert compiled >= {"child", "check", "pool", "accumulation"}
