"""One suite for every object store: a local directory, and a real S3 server."""

import hashlib
import random
import threading
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from servers import S3Server, run_s3

from core.storage.local import LocalObjectStore
from core.storage.object_store import ObjectNotFound, ObjectStore, StoreUnavailable
from core.storage.s3 import S3Access, S3ObjectStore
from core.storage.trees import TreeDamaged, check_stored, fetch_file, fetch_tree, read_manifest, upload_tree

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with run_s3() as server:
        yield server


def open_s3(server: S3Server, bucket: str, **changes: object) -> S3ObjectStore:
    values: dict[str, object] = {
        "bucket": bucket,
        "prefix": "some/prefix/",
        "endpoint_url": server.endpoint_url,
        "access_key_id": server.access_key_id,
        "secret_access_key": server.secret_access_key,
    }
    return S3ObjectStore(S3Access(**values | changes))  # type: ignore[arg-type]


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return LocalObjectStore(tmp_path / "objects")
    return open_s3(request.getfixturevalue("s3"), f"bucket-{uuid.uuid4().hex[:8]}")


def keys_of(store: ObjectStore, prefix: str) -> list[str]:
    return [info.key for info in store.list(prefix)]


def test_bytes_come_back(store: ObjectStore) -> None:
    store.put_bytes("a/b", b"content")
    assert store.get_bytes("a/b") == b"content"
    store.put_bytes("a/b", b"replaced")
    assert store.get_bytes("a/b") == b"replaced"
    store.put_bytes("a/empty", b"")
    assert store.get_bytes("a/empty") == b""


def test_a_large_file_comes_back_whole(store: ObjectStore, tmp_path: Path) -> None:
    """More than one part of a multipart upload."""
    source = tmp_path / "source"
    source.write_bytes(random.Random(7).randbytes(50 * MIB + 17))
    store.put_file("big/file", source)
    target = tmp_path / "target"
    store.get_file("big/file", target)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_final_file_may_be_deleted_once_it_is_stored(store: ObjectStore, tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        source = tmp_path / "source"
        source.write_bytes(content)
        for _ in range(2):
            store.put_file("final/file", source, is_final=True)
        source.unlink()
        assert store.get_bytes("final/file") == content
    assert keys_of(store, "final/") == ["final/file"]
    if isinstance(store, LocalObjectStore):
        assert list((tmp_path / "objects" / ".tmp").iterdir()) == []
        assert (tmp_path / "objects" / "final" / "file").stat().st_mode & 0o777 == 0o600


def test_stat_tells_size_and_time(store: ObjectStore) -> None:
    store.put_bytes("a/b", b"12345")
    info = store.stat("a/b")
    assert (info.key, info.num_bytes) == ("a/b", 5)
    assert abs(info.modified_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_missing_key_is_not_found_everywhere(store: ObjectStore, tmp_path: Path) -> None:
    store.put_bytes("a/b", b"x")
    for call in (
        lambda: store.get_bytes("a/none"),
        lambda: store.stat("a/none"),
        lambda: store.stat("a/b/c"),
        lambda: store.read("a/none"),
        lambda: store.read("a/none", 1, 2),
        lambda: store.get_file("a/none", tmp_path / "target"),
    ):
        with pytest.raises(ObjectNotFound):
            call()
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, None, b"0123456789"), (3, None, b"3456789"), (3, 5, b"34"), (3, 99, b"3456789"), (0, 1, b"0")],
)
def test_ranges(store: ObjectStore, start: int, end: int | None, expected: bytes) -> None:
    store.put_bytes("a/b", b"0123456789")
    assert b"".join(store.read("a/b", start, end)) == expected


@pytest.mark.parametrize(("start", "end"), [(10, None), (5, 5), (5, 4), (99, 100)])
def test_an_empty_range_is_empty(store: ObjectStore, start: int, end: int | None) -> None:
    store.put_bytes("a/b", b"0123456789")
    assert list(store.read("a/b", start, end)) == []


def test_reading_is_in_chunks(store: ObjectStore) -> None:
    content = random.Random(1).randbytes(3 * MIB + 1)
    store.put_bytes("a/b", content)
    chunks = list(store.read("a/b", 1))
    assert b"".join(chunks) == content[1:]
    assert max(map(len, chunks)) <= MIB


def test_a_listing_is_complete(store: ObjectStore) -> None:
    names = ["p/a.b", "p/a/b", "p/a/c/d", "p/ab", "p/Z", "p/é", "q/a", "pp/a"]
    for name in names:
        store.put_bytes(name, name.encode())
    found = [(info.key, info.num_bytes) for info in store.list("p/")]
    assert sorted(found) == sorted((name, len(name.encode())) for name in names if name.startswith("p/"))
    assert keys_of(store, "p/a/") == ["p/a/b", "p/a/c/d"]
    assert keys_of(store, "none/") == []


def test_a_listing_keeps_folders_together_over_pages(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.storage.s3._PAGE_KEYS", 7)
    names = [f"many/{folder}/{number:02d}" for folder in "abc" for number in range(10)]
    for name in reversed(names):
        store.put_bytes(name, b"x")
    assert keys_of(store, "many/") == names


def test_deleting_is_idempotent(store: ObjectStore) -> None:
    store.put_bytes("a/b/c", b"x")
    store.put_bytes("a/d", b"x")
    store.delete("a/b/c")
    store.delete("a/b/c")
    assert keys_of(store, "a/") == ["a/d"]
    store.put_bytes("a/b/c", b"again")
    assert store.get_bytes("a/b/c") == b"again"


@pytest.mark.parametrize("key", ["../a", "a/../b", "/a", "a//b", "", "a/./b", "a/"])
def test_a_key_that_is_none_of_ours_is_a_mistake(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        store.put_bytes(key, b"x")
    with pytest.raises(ValueError, match="key"):
        store.get_bytes(key)


def test_a_prefix_ends_in_a_slash(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="slash"):
        store.list("a")


def test_check_passes_and_leaves_nothing(store: ObjectStore) -> None:
    store.check()
    store.put_bytes("a", b"x")
    assert keys_of(store, "checks/") == []


def test_racing_writers_leave_one_whole_object(store: ObjectStore) -> None:
    contents = [bytes([number]) * (200_000 + number) for number in range(8)]
    threads = [threading.Thread(target=store.put_bytes, args=("race/key", content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get_bytes("race/key") in contents


def test_a_tree_comes_back_whole(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.bin").write_bytes(b"a" * 1000)
    (source / "sub" / "b").write_bytes(b"")
    uploaded = upload_tree(store, "trees/t/", source)
    assert uploaded.num_bytes == 1000
    assert keys_of(store, "trees/t/") == ["trees/t/a.bin", "trees/t/manifest.json", "trees/t/sub/b"]
    files = fetch_tree(store, uploaded, tmp_path / "target")
    assert files == uploaded.files
    assert (tmp_path / "target" / "a.bin").read_bytes() == b"a" * 1000
    assert (tmp_path / "target" / "sub" / "b").read_bytes() == b""


def test_a_damaged_tree_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"aaaa")
    tree = upload_tree(store, "t/", source)
    store.put_bytes("t/a", b"aaab")
    with pytest.raises(TreeDamaged, match="a has changed"):
        fetch_tree(store, tree, tmp_path / "one")
    store.put_bytes("t/a", b"aaaaa")
    with pytest.raises(TreeDamaged, match="5 bytes instead of 4"):
        fetch_tree(store, tree, tmp_path / "two")
    store.delete("t/a")
    with pytest.raises(TreeDamaged, match="a is missing"):
        fetch_tree(store, tree, tmp_path / "three")
    store.put_bytes("t/manifest.json", b"{}")
    with pytest.raises(TreeDamaged, match="manifest has changed"):
        read_manifest(store, tree)
    store.delete("t/manifest.json")
    with pytest.raises(TreeDamaged, match="manifest is missing"):
        read_manifest(store, tree)


class FlippingStore(LocalObjectStore):
    """The first `num_flips` reads of each object come with a flipped bit; what is stored is right."""

    def __init__(self, root: Path, num_flips: int) -> None:
        super().__init__(root)
        self._num_flips = num_flips
        self._num_reads: Counter[str] = Counter()

    def get_bytes(self, key: str) -> bytes:
        return self._on_its_way(key, super().get_bytes(key))

    def get_file(self, key: str, target: Path) -> None:
        super().get_file(key, target)
        content = target.read_bytes()
        target.unlink()  # it may share its bytes with the object
        target.write_bytes(self._on_its_way(key, content))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return iter([self._on_its_way(key, b"".join(super().read(key, start, end)))])

    def _on_its_way(self, key: str, content: bytes) -> bytes:
        self._num_reads[key] += 1
        is_flipped = self._num_reads[key] <= self._num_flips
        return bytes([content[0] ^ 1]) + content[1:] if is_flipped and content else content


def make_folder(folder: Path, num_files: int = 11) -> Path:
    folder.mkdir()
    for number in range(num_files):
        (folder / f"file-{number}").write_bytes(b"content")
    return folder


@pytest.mark.parametrize("num_flips", [1, 2])
def test_bytes_flipped_on_the_way_are_read_again(tmp_path: Path, num_flips: int) -> None:
    """Were the whole folder read anew after each, 30 % of flipped reads would let an artifact of 11 files through
    one time in fifty."""
    source = make_folder(tmp_path / "source")
    uploaded = upload_tree(LocalObjectStore(tmp_path / "objects"), "t/", source)
    check_stored(FlippingStore(tmp_path / "objects", num_flips), uploaded)
    store = FlippingStore(tmp_path / "objects", num_flips)
    assert fetch_tree(store, uploaded, tmp_path / "target") == uploaded.files
    assert {path.read_bytes() for path in (tmp_path / "target").iterdir()} == {b"content"}


def test_bytes_that_never_come_right_are_refused(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source")
    uploaded = upload_tree(LocalObjectStore(tmp_path / "objects"), "t/", source)
    store = FlippingStore(tmp_path / "objects", 100)
    with pytest.raises(StoreUnavailable, match="other bytes of file-0"):
        check_stored(store, uploaded)
    with pytest.raises(TreeDamaged, match="manifest has changed"):
        fetch_tree(store, uploaded, tmp_path / "target")
    file = uploaded.files[0]
    with pytest.raises(TreeDamaged, match="file-0 has changed"):
        fetch_file(store, file, tmp_path / "target" / file.path)


def test_a_presigned_url_downloads_under_its_name(s3: S3Server) -> None:
    store = open_s3(s3, "presigned")
    store.put_bytes("a/b", b"content")
    url = store.download_url("a/b", filename="mödel.bin", seconds=60)
    assert url is not None
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"content"
        assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''m%C3%B6del.bin"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url.replace("a/b?", "a/c?"))
    assert refused.value.code == 403


def test_a_local_directory_has_no_urls(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path)
    store.put_bytes("a", b"x")
    assert store.download_url("a", filename="a", seconds=60) is None


def test_wrong_credentials_are_an_outage_not_a_lost_object(s3: S3Server) -> None:
    open_s3(s3, "guarded").put_bytes("a", b"x")
    with pytest.raises(StoreUnavailable):
        open_s3(s3, "guarded", secret_access_key="wrong").get_bytes("a")


def test_a_missing_bucket_is_an_outage_not_a_lost_object(s3: S3Server) -> None:
    store = open_s3(s3, "never-made")
    with pytest.raises(StoreUnavailable):
        store.get_bytes("a")
    with pytest.raises(StoreUnavailable):
        store.stat("a")


def test_a_server_that_is_not_there_is_an_outage() -> None:
    access = S3Access(bucket="b", endpoint_url="http://127.0.0.1:1", access_key_id="k", secret_access_key="s")
    with pytest.raises(StoreUnavailable):
        S3ObjectStore(access).check()


def test_abandoned_multipart_uploads_are_aborted(s3: S3Server) -> None:
    store = open_s3(s3, "leftovers")
    store.put_bytes("a", b"x")
    client = store._client
    client.create_multipart_upload(Bucket="leftovers", Key="some/prefix/half")
    store.remove_leftovers(older_than_seconds=3600)
    assert len(client.list_multipart_uploads(Bucket="leftovers").get("Uploads", [])) == 1
    store.remove_leftovers(older_than_seconds=-5)
    assert client.list_multipart_uploads(Bucket="leftovers").get("Uploads", []) == []
