"""Loaded models of a runner: as many as fit its memory; the one used longest ago makes room for another."""

import asyncio
import hashlib
import json
import logging
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from anyio import to_thread

from core.disk_space import full_disk_detail, is_out_of_space
from core.domain.errors import Unavailable
from core.domain.generation_protocol import GenerationTask
from core.services.backend import Backend
from core.services.chat.devices import is_training
from core.services.chat.model_parts import ModelParts, find_parts
from core.services.chat.runner import DeviceBusy, ModelTooLarge, RunnerBusy, RunnerFailed, RunnerUnavailable
from core.services.chat.served_models import ServedModel
from worker.runner.engine import Engine, EngineBounds
from worker.runner.files import ModelFiles, fetch_model
from worker.runner.limits import RunnerLimits
from worker.runner.sizes import ModelSize, measure
from worker.scratch import WorkerScratch

_CACHED_TOKENS = 1024
"""Tokens of the cache for each answer that may be under way."""
_GIB = 1024**3

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class LoadedModel:
    engine: Engine
    files: ModelFiles
    signature: object
    num_bytes: int
    """Memory as it was planned."""
    max_context: int
    resources: ExitStack
    num_users: int = 0
    used_at: float = field(default_factory=time.monotonic)

    @property
    def is_current(self) -> bool:
        """Whether the process lives, and the base model's files are those that it loaded."""
        try:
            return self.engine.is_alive and self.files.signature == self.signature
        except OSError:
            return False


class ModelPool:
    """Lives on one event loop."""

    def __init__(self, backend: Backend, scratch: WorkerScratch, limits: RunnerLimits) -> None:
        self.limits = limits
        self.used_at = time.monotonic()
        """Last time that somebody wanted a model."""
        self._backend = backend
        self._scratch = scratch
        self._loaded: dict[str, LoadedModel] = {}
        self._loads: dict[str, asyncio.Task[LoadedModel]] = {}
        self._num_waiting: Counter[str] = Counter()
        """Requests that wait for a model, by its key."""
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._num_loads = 0
        self._is_closed = False

    @property
    def loaded(self) -> list[LoadedModel]:
        return list(self._loaded.values())

    @property
    def is_idle(self) -> bool:
        return not self._loads and all(model.num_users == 0 for model in self._loaded.values())

    @asynccontextmanager
    async def use(self, model: ServedModel) -> AsyncIterator[LoadedModel]:
        """Hold a loaded model while the block runs; it is loaded where needed, once somebody waits at its turn.

        Raises ModelTooLarge, ModelNotServed, DeviceBusy, RunnerBusy, RunnerFailed, Unavailable.
        """
        self.used_at = time.monotonic()
        key = _key_of(model)
        held = self._loaded.get(key)
        while held is None or not held.is_current:  # a model just loaded may have made room before its turn came
            await self._wait_for(key, model)
            held = self._loaded.get(key)
        held.num_users += 1
        try:
            yield held
        finally:
            held.num_users -= 1
            held.used_at = self.used_at = time.monotonic()
            self._freed.set()

    async def _wait_for(self, key: str, model: ServedModel) -> None:
        """Wait until the model was loaded. Raises what `use` raises."""
        load = self._loads.get(key)
        if load is None or load.done():
            load = self._loads[key] = asyncio.create_task(self._load(key, model))
            load.add_done_callback(partial(self._forget_load, key))
        self._num_waiting[key] += 1
        try:
            await asyncio.shield(load)
        finally:
            self._num_waiting[key] -= 1
            if not self._num_waiting[key]:
                del self._num_waiting[key]

    async def sweep(self) -> None:
        """Give up what has ended or nobody uses, and everything where a job trains on a device not to be shared."""
        is_forbidden = bool(self._loaded) and await self._is_forbidden()
        oldest = time.monotonic() - self.limits.idle_seconds
        for key, model in list(self._loaded.items()):
            is_unused = model.num_users == 0 and model.used_at < oldest
            is_there = self._loaded.get(key) is model  # others drop and load while this one ends a process
            if is_there and (is_forbidden or is_unused or not model.engine.is_alive):
                await self._drop(key)

    async def close(self) -> None:
        """End all that is loaded or being loaded."""
        self._is_closed = True
        for load in list(self._loads.values()):
            load.cancel()
        await asyncio.gather(*self._loads.values(), return_exceptions=True)
        for key in list(self._loaded):
            await self._drop(key)

    async def _load(self, key: str, model: ServedModel) -> LoadedModel:
        parts, size = await self._measure(model)
        precision = self._precision_of(model)
        max_context = size.context(self.limits.max_context)
        num_cached = max(max_context, _CACHED_TOKENS * self.limits.max_sequences)
        num_bytes = size.needed_bytes(precision, num_cached)
        self._require_fits(model, num_bytes)
        async with self._turn:
            if not self._num_waiting[key]:
                raise RunnerUnavailable("Nobody waits for this model any more.")
            if key in self._loaded:
                await self._drop(key)
            if await self._is_forbidden():
                raise DeviceBusy(
                    f"A job is training on {self.limits.device}, which answers do not share with training "
                    "(PREFTUNE_RUNNER_SHARING). Ask again when it has ended."
                )
            with ExitStack() as resources:
                self._num_loads += 1
                work_dir = resources.enter_context(self._scratch.directory(f"model-{self._num_loads}"))
                files = await self._fetch(model, parts, work_dir)
                await self._make_room(num_bytes)
                bounds = EngineBounds(work_dir=work_dir, reads=files.reads, niceness=self.limits.niceness)
                engine = await Engine.open(model.name, self._task(files, precision, max_context), bounds)
                _log.info("%s is loaded: %d MiB", model.name, engine.resident_bytes // 1024**2)
                loaded = self._loaded[key] = LoadedModel(
                    engine=engine,
                    files=files,
                    signature=files.signature,
                    num_bytes=num_bytes,
                    max_context=max_context,
                    resources=resources.pop_all(),
                )
            return loaded

    async def _measure(self, model: ServedModel) -> tuple[ModelParts, ModelSize]:
        """Find a model and read its size; what does not fit is refused before it is fetched."""

        def work() -> tuple[ModelParts, ModelSize]:
            parts = find_parts(self._backend, model)
            return parts, measure(self._backend, model, parts)

        return await to_thread.run_sync(work)

    async def _fetch(self, model: ServedModel, parts: ModelParts, work_dir: Path) -> ModelFiles:
        try:
            return await to_thread.run_sync(partial(fetch_model, self._backend, model, parts, work_dir, self._check))
        except OSError as error:
            if not is_out_of_space(error):
                raise
            raise RunnerFailed(full_disk_detail("the files of this model", "then ask again")) from error

    def _check(self) -> None:
        if self._is_closed:
            raise RunnerUnavailable("The runner is ending; ask again.")

    def _precision_of(self, model: ServedModel) -> str:
        if model.precision == "auto":
            return "fp32" if self.limits.device == "cpu" else "bf16"
        return model.precision

    def _task(self, files: ModelFiles, precision: str, max_context: int) -> GenerationTask:
        limits = self.limits
        return GenerationTask(
            model_dir=str(files.model_dir),
            adapter_dir=None if files.adapter_dir is None else str(files.adapter_dir),
            precision=precision,
            device=limits.device,
            num_threads=limits.num_threads,
            niceness=0,
            max_sequences=limits.max_sequences,
            max_context=max_context,
        )

    def _require_fits(self, model: ServedModel, num_bytes: int) -> None:
        budget = self.limits.memory_bytes
        if num_bytes > budget:
            raise ModelTooLarge(
                f"{model.name} takes about {num_bytes / _GIB:.1f} GiB to answer, and models may take "
                f"{budget / _GIB:.1f} GiB here; the operator may raise PREFTUNE_RUNNER_MEMORY_BYTES."
            )

    async def _make_room(self, num_bytes: int) -> None:
        """Drop models that nobody uses until there is room; wait for others. Raises RunnerBusy."""
        budget = self.limits.memory_bytes
        deadline = time.monotonic() + self.limits.timeout_seconds
        while sum(map(self._held_bytes, self._loaded.values())) + num_bytes > budget:
            self._freed.clear()
            unused = [(loaded.used_at, key) for key, loaded in self._loaded.items() if loaded.num_users == 0]
            if unused:
                await self._drop(min(unused)[1])
                continue
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._freed.wait()
            except TimeoutError:
                raise RunnerBusy("All models that fit the memory are answering; ask again later.") from None

    async def _is_forbidden(self) -> bool:
        """Whether a job trains on the device, which is not to be shared; during an outage it counts as free."""
        if self.limits.may_share:
            return False
        work = partial(is_training, self._backend, socket.gethostname(), self.limits.device)
        try:
            return await to_thread.run_sync(work)
        except Unavailable:
            return False

    async def _drop(self, key: str) -> None:
        loaded = self._loaded.pop(key)
        await loaded.engine.close()
        await to_thread.run_sync(loaded.resources.close)

    def _held_bytes(self, loaded: LoadedModel) -> int:
        """Return what a model takes of the budget: on a GPU as planned, where the process's own memory is another."""
        is_on_cpu = self.limits.device == "cpu"
        return max(loaded.num_bytes, loaded.engine.resident_bytes) if is_on_cpu else loaded.num_bytes

    def _forget_load(self, key: str, load: "asyncio.Task[LoadedModel]") -> None:
        if self._loads.get(key) is load:
            del self._loads[key]
        if not load.cancelled():
            load.exception()  # it was told to who asked, or nobody is left to tell


def _key_of(model: ServedModel) -> str:
    """Return the digest of what determines the weights: one model has several names."""
    same = replace(model, name="", root_name="", job_id=None, template_kwargs=(), rendered_at=None)
    return hashlib.sha256(json.dumps(asdict(same), sort_keys=True).encode()).hexdigest()
