"""The checker itself: runs that are checked at the same time do not disturb each other."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from faults.checker import collect_everything

from core.services.backend import Backend
from core.storage import keys
from core.storage.local import LocalObjectStore
from core.storage.object_store import ObjectInfo

SECONDS = 30


class StoreWithGate(LocalObjectStore):
    """Tells that it is about to be listed, and waits until it may be."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.is_reached = threading.Event()
        self.may_go_on = threading.Event()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.is_reached.set()
        assert self.may_go_on.wait(SECONDS)
        return super().list(prefix)


def test_two_runs_that_collect_at_once_both_collect(backend: Backend, tmp_path: Path) -> None:
    """The second begins before the first ends, and goes on after it."""
    orphan = keys.artifact_prefix("default", "job_gone", 1) + "manifest.json"
    stores = [StoreWithGate(tmp_path / name) for name in ("one", "two")]
    for store in stores:
        store.put_bytes(orphan, b"x")
    with ThreadPoolExecutor(2) as pool:
        first, second = (_start(pool, replace(backend, store=store)) for store in stores)
        stores[0].may_go_on.set()
        first.result(SECONDS)
        stores[1].may_go_on.set()
        second.result(SECONDS)
    assert [[info.key for info in store.list(keys.ROOT)] for store in stores] == [[], []]


def _start(pool: ThreadPoolExecutor, backend: Backend) -> "Future[None]":
    """Under way, as far as its first listing."""
    run = pool.submit(collect_everything, backend)
    assert isinstance(backend.store, StoreWithGate)
    assert backend.store.is_reached.wait(SECONDS)
    return run
