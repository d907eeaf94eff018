"""Files that come from the store with other bytes: on the way only, or for good."""

import hashlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from core.domain.jobs.stored_files import StoredFile
from core.services.jobs.stored_files import ObjectDamaged, ObjectMissing, read_file
from core.storage.object_store import ObjectNotFound, StoreUnavailable

CHUNKS = [b"one", b"two", b"three"]


class FlippingStore:
    """Gives the bytes wrong so many times, in the first chunk."""

    def __init__(self, chunks: list[bytes], num_wrong: int, wrong: bytes | None = None) -> None:
        self.chunks, self.num_wrong, self.num_reads = chunks, num_wrong, 0
        self.wrong = bytes(len(chunks[0])) if wrong is None else wrong

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.num_reads += 1
        is_wrong = self.num_reads <= self.num_wrong
        return iter([self.wrong if is_wrong else self.chunks[0], *self.chunks[1:]])


def open_file(store: FlippingStore, told: list[Any]) -> Iterator[bytes]:
    whole = b"".join(store.chunks)
    file = StoredFile(path="a", num_bytes=len(whole), sha256=hashlib.sha256(whole).hexdigest(), key="k")
    backend = SimpleNamespace(store=store, database=SimpleNamespace(write=told.append))
    return read_file(backend, "job_1", file, 0, len(whole))  # type: ignore[arg-type]


@pytest.mark.parametrize("num_wrong", [0, 1, 2])
def test_a_small_file_that_comes_wrong_is_read_up_to_three_times(num_wrong: int) -> None:
    store, told = FlippingStore([b"small"], num_wrong), []
    assert list(open_file(store, told)) == [b"small"]
    assert (store.num_reads, told) == (num_wrong + 1, [])


@pytest.mark.parametrize("chunks", [[b"small"], CHUNKS])
def test_what_comes_wrong_three_times_is_damaged_and_told_of(chunks: list[bytes]) -> None:
    store, told = FlippingStore(chunks, 3), []
    with pytest.raises(ObjectDamaged):
        list(open_file(store, told))
    assert (store.num_reads, len(told)) == (3, 1)


@pytest.mark.parametrize("num_wrong", [1, 2])
def test_a_long_file_that_came_wrong_once_breaks_off_and_is_not_called_damaged(num_wrong: int) -> None:
    store, told = FlippingStore(CHUNKS, num_wrong), []
    chunks = open_file(store, told)
    assert [next(chunks), next(chunks)] == [b"\0\0\0", b"two"]
    with pytest.raises(StoreUnavailable, match="request it again"):
        next(chunks)
    assert (store.num_reads, told) == (num_wrong + 1, [])


def test_a_file_that_came_too_short_is_not_gathered_in_memory() -> None:
    told: list[Any] = []
    with pytest.raises(StoreUnavailable):
        list(open_file(FlippingStore([b"small"], 1, wrong=b"s"), told))
    assert told == []


def test_a_missing_object_is_told_of() -> None:
    class LosingStore(FlippingStore):
        def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
            raise ObjectNotFound(key)

    told: list[Any] = []
    with pytest.raises(ObjectMissing, match="restore it from a backup"):
        open_file(LosingStore([b"small"], 0), told)
    assert len(told) == 1
