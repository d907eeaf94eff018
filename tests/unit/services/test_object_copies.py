import subprocess
from pathlib import Path

import pytest

from core.services.operations import backup
from core.services.operations.backup import CopyRefused
from core.storage import keys
from core.storage.local import LocalObjectStore

CONTENTS = {
    f"{keys.ROOT}default/jobs/job_1/a1/artifact/model.safetensors": b"weights",
    f"{keys.ROOT}default/datasets/ds_1/rows.jsonl": b"",
    f"{keys.MODELS_ROOT}tiny/current.json": b"{}",
}


@pytest.fixture
def store(tmp_path: Path) -> LocalObjectStore:
    store = LocalObjectStore(tmp_path / "store")
    for key, content in CONTENTS.items():
        store.put_bytes(key, content)
    return store


def contents(store: LocalObjectStore) -> dict[str, bytes]:
    roots = (keys.ROOT, keys.MODELS_ROOT)
    return {info.key: store.get_bytes(info.key) for root in roots for info in store.list(root)}


def test_a_store_comes_back_whole(store: LocalObjectStore, tmp_path: Path) -> None:
    assert backup.save(store, tmp_path / "copy") == len(CONTENTS)
    check = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "copy", check=False)
    assert check.returncode == 0
    other = LocalObjectStore(tmp_path / "other")
    assert backup.load(other, tmp_path / "copy") == len(CONTENTS)
    assert contents(other) == CONTENTS


def test_nothing_is_written_over(store: LocalObjectStore, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").write_text("x")
    with pytest.raises(CopyRefused, match="not empty"):
        backup.save(store, tmp_path / "copy")
    backup.save(store, tmp_path / "good")
    with pytest.raises(CopyRefused, match="holds objects already"):
        backup.load(store, tmp_path / "good")


@pytest.mark.parametrize("damage", ["changed", "missing", "unfinished"])
def test_a_damaged_copy_is_refused_before_anything_is_written(
    store: LocalObjectStore, tmp_path: Path, damage: str
) -> None:
    copy = tmp_path / "copy"
    backup.save(store, copy)
    weights = next(copy.rglob("model.safetensors"))
    if damage == "changed":
        weights.write_bytes(b"weightz")
    elif damage == "missing":
        weights.unlink()
    else:
        (copy / "SHA256SUMS").unlink()
    other = LocalObjectStore(tmp_path / "other")
    with pytest.raises(CopyRefused, match=r"missing or damaged|cannot be read"):
        backup.load(other, copy)
    assert contents(other) == {}
