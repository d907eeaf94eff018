import errno
import hashlib
from pathlib import Path

import pytest

from api.uploads.spool import SpoolArea, SpoolFull, UploadTooLarge


def test_a_file_is_counted_hashed_private_and_gone_afterwards(tmp_path: Path) -> None:
    area = SpoolArea.open(tmp_path)
    with area.new_file(100) as file:
        file.write(b"a" * 60)
        file.write(b"b" * 40)
        assert file.path.stat().st_mode & 0o777 == 0o600
        assert (file.num_bytes, file.sha256) == (100, hashlib.sha256(b"a" * 60 + b"b" * 40).hexdigest())
        assert file.path.read_bytes() == b"a" * 60 + b"b" * 40
        with pytest.raises(UploadTooLarge):
            file.write(b"c")
        assert file.path.stat().st_size == 100
    assert not file.path.exists()
    area.close()
    assert list(tmp_path.iterdir()) == []


def test_a_failing_block_leaves_nothing(tmp_path: Path) -> None:
    area = SpoolArea.open(tmp_path)
    paths: list[Path] = []

    def fail() -> None:
        with area.new_file(100) as file:
            paths.append(file.path)
            file.write(b"a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not paths[0].exists()
    area.close()


def test_a_start_removes_only_what_nobody_holds(tmp_path: Path) -> None:
    living = SpoolArea.open(tmp_path)
    dead = tmp_path / "uploads-dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "upload-1").write_bytes(b"x")
    (tmp_path / "uploads-without-lock").mkdir()
    (tmp_path / "check-1").mkdir()  # another's
    with living.new_file(10) as file:
        SpoolArea.open(tmp_path).close()
        assert file.path.exists()
    assert sorted(path.name[:8] for path in tmp_path.iterdir()) == ["check-1", "uploads-"]
    living.close()


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    area = SpoolArea.open(tmp_path)

    class FullDisk:
        def write(self, data: memoryview) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            return

    with area.new_file(100) as file:
        file.close()
        monkeypatch.setattr(file, "_file", FullDisk())
        with pytest.raises(SpoolFull) as caught:
            file.write(b"x")
    assert caught.value.kind == "unavailable"
    assert str(tmp_path) not in caught.value.detail
    area.close()
