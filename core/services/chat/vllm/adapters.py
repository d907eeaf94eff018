"""LoRA policies that vLLM has loaded at run time: fetched into a folder that it sees too, and unloaded for others."""

import asyncio
import hashlib
import json
import shutil
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
from anyio import to_thread

from core.services.backend import Backend
from core.services.chat.model_parts import ModelPart, damaged, fetch_part, find_adapter
from core.services.chat.runner import ModelNotServed, RunnerBusy, RunnerFailed
from core.services.chat.served_models import ServedModel
from core.storage.trees import TreeDamaged

PREFIX = "preftune-"
_LEFT_SECONDS = 3600.0
"""Age at which a folder that nobody names is deleted when the service starts."""
_FOLDER_MODE, _FILE_MODE = 0o750, 0o640
"""vLLM may run as another user of the same group."""

Send = Callable[[str, Path | None], Awaitable[None]]
"""Loads an adapter from a folder, or unloads it where there is none."""

_log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class _Loaded:
    num_users: int = 0


class LoadedAdapters:
    """Lives on one event loop. Names are digests of the weights, so that one policy has one name for all processes."""

    def __init__(self, backend: Backend, folder: Path, most: int, send: Send) -> None:
        self._backend = backend
        self._folder = folder
        self._most = most
        self._send = send
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        """The one used longest ago comes first."""
        self._turn = asyncio.Lock()
        self._left: list[tuple[float, Path]] = []
        """Folders of adapters that were unloaded, and when: a request under way may still read one."""

    async def adopt(self, names: list[str]) -> None:
        """Take over what an earlier process has loaded, and delete folders of which nothing is known."""
        ours = [name for name in names if name.startswith(PREFIX)]
        for name in ours:
            self._loaded.setdefault(name, _Loaded())
        await to_thread.run_sync(_delete_unknown, self._folder, frozenset(ours))

    @asynccontextmanager
    async def use(self, model: ServedModel) -> AsyncIterator[str]:
        """Hold a loaded adapter while the block runs; yields its name.

        Raises ModelNotServed, RunnerBusy, RunnerFailed, Unavailable.
        """
        name = adapter_name(model)
        async with self._turn:
            if name not in self._loaded:
                await self._make_room()
                await self._send(name, await self._fetch(name, model))
                self._loaded[name] = _Loaded()
            held = self._loaded[name]
            self._loaded.move_to_end(name)
            held.num_users += 1
        try:
            yield name
        finally:
            held.num_users -= 1

    def forget(self, model: ServedModel) -> None:
        """Note that the server does not know an adapter any more, since it was started anew."""
        self._loaded.pop(adapter_name(model), None)

    async def _make_room(self) -> None:
        while len(self._loaded) >= self._most:
            name = next((name for name, held in self._loaded.items() if held.num_users == 0), None)
            if name is None:
                raise RunnerBusy(
                    f"{self._most} policies are answering, as many as vLLM has loaded at a time "
                    "(PREFTUNE_RUNNER_MAX_ADAPTERS); ask again later."
                )
            await self._send(name, None)
            del self._loaded[name]
            self._left.append((time.monotonic(), self._folder / name))

    async def _fetch(self, name: str, model: ServedModel) -> Path:
        """Return the adapter's folder, fetched unless it is there."""
        await self._delete_left(but=name)
        try:
            return await to_thread.run_sync(partial(_fetch, self._backend, model, self._folder, name))
        except OSError as error:
            _log.warning("adapter_not_written", folder=str(self._folder), error=str(error))
            raise RunnerFailed(
                "The folder of adapters cannot be written (PREFTUNE_RUNNER_ADAPTERS_DIR); the service's log says more."
            ) from error

    async def _delete_left(self, but: str) -> None:
        oldest = time.monotonic() - self._backend.settings.chat_timeout_seconds
        due = [path for at, path in self._left if at < oldest and path.name not in self._loaded]
        self._left = [(at, path) for at, path in self._left if at >= oldest and path.name != but]
        for path in due:
            if path.name != but:
                await to_thread.run_sync(partial(shutil.rmtree, path, ignore_errors=True))


def adapter_name(model: ServedModel) -> str:
    """Return the name of a policy's adapter at the server: a digest of what determines its weights."""
    assert model.policy is not None
    parts = [model.base_name, model.policy.prefix, model.policy.manifest_sha256, model.is_adapter_root]
    return PREFIX + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _fetch(backend: Backend, model: ServedModel, parent: Path, name: str) -> Path:
    target = parent.resolve() / name
    if target.is_dir():
        return target
    part = _find(backend, model)
    temporary = parent.resolve() / f".{uuid.uuid4().hex}"
    try:
        fetch_part(backend, part, temporary, lambda: None)
        for path in temporary.rglob("*"):
            path.chmod(_FOLDER_MODE if path.is_dir() else _FILE_MODE)
        temporary.chmod(_FOLDER_MODE)
        _rename(temporary, target)
    except TreeDamaged as damage:
        raise damaged(model, damage) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _find(backend: Backend, model: ServedModel) -> ModelPart:
    try:
        part = find_adapter(backend.store, model)
    except TreeDamaged as damage:
        raise damaged(model, damage) from None
    if part is None:
        raise ModelNotServed(f"{model.name} was trained as an adapter, but none is kept.")
    return part


def _rename(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise


def _delete_unknown(folder: Path, known: frozenset[str]) -> None:
    folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    oldest = time.time() - _LEFT_SECONDS
    for path in folder.iterdir():
        is_ours = path.name.startswith((PREFIX, "."))
        if is_ours and path.is_dir() and path.name not in known and path.stat().st_mtime < oldest:
            shutil.rmtree(path, ignore_errors=True)
