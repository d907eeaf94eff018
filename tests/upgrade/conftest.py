"""The first release: its code out of the repository's history, and the file of its database."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "7b06ab9"


@pytest.fixture(scope="session")
def released_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = subprocess.run(["git", "archive", RELEASE], cwd=ROOT, capture_output=True)
    if found.returncode:
        pytest.skip(f"the history with {RELEASE} is not here")
    folder = tmp_path_factory.mktemp("release")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'preftune.db'}"
