"""What only a local directory can do wrong: links, modes, torn writes, a missing mount."""

import os
import stat
from pathlib import Path

import pytest

from core.storage.local import LocalObjectStore
from core.storage.object_store import ObjectNotFound, StoreUnavailable


@pytest.fixture
def store(tmp_path: Path) -> LocalObjectStore:
    return LocalObjectStore(tmp_path / "objects")


def test_nothing_is_readable_by_others(store: LocalObjectStore, tmp_path: Path) -> None:
    store.put_bytes("a/b", b"x")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "objects").rglob("*")}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes


def test_a_link_is_never_followed(store: LocalObjectStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.put_bytes("a/b", b"x")
    (tmp_path / "objects" / "a" / "file").symlink_to(outside / "secret")
    (tmp_path / "objects" / "a" / "folder").symlink_to(outside)
    with pytest.raises(StoreUnavailable):
        store.get_bytes("a/file")
    with pytest.raises(ValueError, match="leaves"):
        store.get_bytes("a/folder/secret")
    with pytest.raises(ValueError, match="leaves"):
        store.put_bytes("a/folder/new", b"x")
    assert [info.key for info in store.list("a/")] == ["a/b"]


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = LocalObjectStore(tmp_path / "link")
    store.put_bytes("a", b"x")
    assert (tmp_path / "real" / "a").read_bytes() == b"x"


def test_a_write_that_fails_leaves_the_old_object(
    store: LocalObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_bytes("a/b", b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreUnavailable, match="full"):
        store.put_bytes("a/b", b"new")
    assert store.get_bytes("a/b") == b"old"
    assert list((tmp_path / "objects" / ".tmp").iterdir()) == []


def test_a_missing_mount_is_an_outage_not_a_lost_object(store: LocalObjectStore, tmp_path: Path) -> None:
    store.put_bytes("a", b"x")
    (tmp_path / "objects").rename(tmp_path / "unmounted")
    (tmp_path / "objects").mkdir()
    for call in (
        lambda: store.get_bytes("a"),
        lambda: store.stat("a"),
        lambda: store.delete("a"),
        lambda: store.list("b/"),
        store.check,
    ):
        with pytest.raises(StoreUnavailable, match="mounted"):
            call()
    (tmp_path / "objects").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "objects")
    assert store.get_bytes("a") == b"x"


def test_a_folder_is_no_object(store: LocalObjectStore) -> None:
    store.put_bytes("a/b", b"x")
    with pytest.raises(ObjectNotFound):
        store.get_bytes("a")


def test_emptied_folders_go(store: LocalObjectStore, tmp_path: Path) -> None:
    store.put_bytes("a/b/c", b"x")
    store.delete("a/b/c")
    assert sorted(path.name for path in (tmp_path / "objects").iterdir()) == [".tmp"]


def test_leftovers_of_killed_writers_go_once_they_are_old(store: LocalObjectStore, tmp_path: Path) -> None:
    old, fresh = (tmp_path / "objects" / ".tmp" / name for name in ("old", "fresh"))
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    store.remove_leftovers(older_than_seconds=3600)
    assert (old.exists(), fresh.exists()) == (False, True)
