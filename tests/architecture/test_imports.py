"""The import contracts of `pyproject.toml`, and what a process must not have loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_import_contracts_hold() -> None:
    run = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    "module", ["api.app", "cli.main", "core.services.backend", "worker.attempt.supervisor", "preftune"]
)
def test_nothing_but_the_trainer_loads_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


def test_nothing_is_unpickled() -> None:
    banned = ("import pickle", "torch.load(", "torch.save(", "import joblib", "trust_remote_code=True")
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for package in ("api", "worker", "cli", "core", "client/preftune")
        for path in (ROOT / package).rglob("*.py")
        for word in banned
        if word in path.read_text(encoding="utf-8")
    ]
    assert not found
