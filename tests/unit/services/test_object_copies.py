"""Copies of stores that version 0.1.0 wrote can be restored."""

import hashlib
from pathlib import Path

import pytest

from core.services.operations.backups.folder_of_first_release import CopyRefused, load
from core.storage import keys
from core.storage.local import LocalObjectStore

CONTENTS = {
    f"{keys.ROOT}default/jobs/job_1/a1/artifact/model.safetensors": b"weights",
    f"{keys.ROOT}default/datasets/ds_1/rows.jsonl": b"",
    f"{keys.MODELS_ROOT}tiny/current.json": b"{}",
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """As `preftune objects save` of 0.1.0 left it."""
    folder = tmp_path / "copy"
    lines = []
    for key, content in CONTENTS.items():
        path = folder / "objects" / key
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  objects/{key}\n")
    (folder / "objects" / ".tmp").mkdir()
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


def contents(store: LocalObjectStore) -> dict[str, bytes]:
    roots = (keys.ROOT, keys.MODELS_ROOT)
    return {info.key: store.get_bytes(info.key) for root in roots for info in store.list(root)}


def test_a_store_comes_back_whole(copy: Path, tmp_path: Path) -> None:
    other = LocalObjectStore(tmp_path / "other")
    assert load(other, copy) == len(CONTENTS)
    assert contents(other) == CONTENTS
    with pytest.raises(CopyRefused, match="holds objects already"):
        load(other, copy)


@pytest.mark.parametrize("damage", ["changed", "missing", "unfinished"])
def test_a_damaged_copy_is_refused_before_anything_is_written(copy: Path, tmp_path: Path, damage: str) -> None:
    weights = next(copy.rglob("model.safetensors"))
    if damage == "changed":
        weights.write_bytes(b"weightz")
    elif damage == "missing":
        weights.unlink()
    else:
        (copy / "SHA256SUMS").unlink()
    other = LocalObjectStore(tmp_path / "other")
    with pytest.raises(CopyRefused, match=r"missing or damaged|no whole copy"):
        load(other, copy)
    assert contents(other) == {}
