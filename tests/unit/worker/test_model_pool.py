"""Models of a runner: who is given up, who is loaded, and what counts, with processes and files made up."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.services.chat.served_models import ServedModel
from worker.runner import pool as pools
from worker.runner.limits import RunnerLimits
from worker.runner.pool import LoadedModel, ModelPool

MIB = 1024**2
LIMITS = RunnerLimits(
    device="cpu",
    num_threads=1,
    niceness=0,
    may_share=True,
    memory_bytes=200 * MIB,
    idle_seconds=0,
    max_sequences=1,
    max_waiting=1,
    max_context=16,
    timeout_seconds=60,
)


class Process:
    """Stands for an engine; its end waits for `may_end`."""

    ready = None

    def __init__(self) -> None:
        self.is_alive, self.resident_bytes, self.may_end = True, 0, asyncio.Event()
        self.may_end.set()

    async def close(self) -> None:
        self.is_alive = False
        await self.may_end.wait()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Process]]:
    """Models that were loaded, in order; each is planned with 90 MiB."""
    found: list[tuple[str, Process]] = []

    async def open_engine(name: str, *_: Any) -> Process:
        found.append((name, Process()))
        return found[-1][1]

    files = SimpleNamespace(model_dir=Path("/m"), adapter_dir=None, reads=(), signature=())
    monkeypatch.setattr(pools.Engine, "open", open_engine)
    size = SimpleNamespace(context=lambda _most: 16, needed_bytes=lambda *_: 90 * MIB)
    monkeypatch.setattr(pools, "find_parts", lambda *_: None)
    monkeypatch.setattr(pools, "measure", lambda *_: size)
    monkeypatch.setattr(pools, "fetch_model", lambda *_: files)
    return found


def pool_of(folder: Path, **limits: Any) -> ModelPool:
    @contextmanager
    def directory(_name: str) -> Any:
        yield folder

    scratch: Any = SimpleNamespace(directory=directory)
    backend: Any = None
    return ModelPool(backend, scratch, replace(LIMITS, **limits))


def model(name: str) -> ServedModel:
    return ServedModel(name=name, base_name=name, root_name=name)


async def use(pool: ModelPool, name: str) -> LoadedModel:
    async with pool.use(model(name)) as loaded:
        return loaded


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0)


def test_a_model_that_came_back_while_others_were_given_up_stays(
    opened: list[tuple[str, Process]], tmp_path: Path
) -> None:
    async def run() -> None:
        pool = pool_of(tmp_path)
        await use(pool, "first")
        await use(pool, "second")
        opened[0][1].may_end.clear()
        sweeping = asyncio.create_task(pool.sweep())
        await until(lambda: not opened[0][1].is_alive)
        opened[1][1].is_alive = False  # as if it had died: a request drops it and loads it again
        async with pool.use(model("second")) as again:
            opened[0][1].may_end.set()
            await sweeping
            assert again.engine.is_alive, "who is answering is not given up for its predecessor"
            assert pool.loaded == [again]
        await pool.close()

    asyncio.run(run())


def test_a_model_that_nobody_waits_for_any_more_is_not_loaded(
    opened: list[tuple[str, Process]], tmp_path: Path
) -> None:
    async def run() -> None:
        pool = pool_of(tmp_path)
        async with pool._turn:
            asking = [asyncio.create_task(use(pool, f"model {number}")) for number in range(20)]
            await until(lambda: len(pool._loads) == 20)
            for task in asking[1:]:
                task.cancel()
            await asyncio.gather(*asking[1:], return_exceptions=True)
        await asking[0]
        await until(lambda: not pool._loads)
        assert [name for name, _ in opened] == ["model 0"]
        await use(pool, "model 7")
        assert opened[-1][0] == "model 7", "it is when somebody asks again"
        await pool.close()

    asyncio.run(run())


@pytest.mark.parametrize(("device", "num_kept"), [("cpu", 1), ("cuda", 2)])
def test_memory_of_the_process_counts_where_the_budget_is_of_it(
    opened: list[tuple[str, Process]], tmp_path: Path, device: str, num_kept: int
) -> None:
    async def run() -> None:
        pool = pool_of(tmp_path, device=device)
        await use(pool, "first")
        opened[0][1].resident_bytes = 150 * MIB
        await use(pool, "second")
        assert len(pool.loaded) == num_kept
        await pool.close()

    asyncio.run(run())


def test_resources_are_let_go_with_the_model(opened: list[tuple[str, Process]], tmp_path: Path) -> None:
    async def run() -> None:
        pool = pool_of(tmp_path)
        loaded = await use(pool, "first")
        assert isinstance(loaded.resources, ExitStack)
        await asyncio.sleep(0.001)
        await pool.sweep()
        assert pool.loaded == []
        assert not opened[0][1].is_alive

    asyncio.run(run())
