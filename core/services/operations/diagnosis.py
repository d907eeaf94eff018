"""Does this deployment work, seen from this machine? For the operator: each finding says what to do."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import select

from core.base_models.directory import list_base_models, refused_base_models
from core.clock import utc_now
from core.database.columns import database_now
from core.database.migrate import is_current
from core.domain.errors import DomainError
from core.services.access import api_keys
from core.services.backend import Backend
from core.services.datasets.scratch import scratch_folder
from core.storage.object_store import ObjectStore

MAX_SKEW_SECONDS = 5.0
MIN_FREE_BYTES = 10 * 1024**3
MULTIPART_BYTES = 33 * 1024**2
"""More than goes to S3 in one piece."""
_RANGE = (MULTIPART_BYTES // 2 - 7, MULTIPART_BYTES // 2 + 9)

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    name: str
    state: State
    detail: str


Answer = tuple[State, str]


def diagnose(backend: Backend) -> Iterator[Finding]:
    """One finding after the other, as they come. Raises nothing."""
    checks: tuple[tuple[str, Callable[[Backend], Answer]], ...] = (
        ("database", _database),
        ("clock", _clock),
        ("store", _store),
        ("broker", _broker),
        ("disk", _disk),
        ("base models", _base_models),
        ("keys", _keys),
    )
    for name, check in checks:
        try:
            state, detail = check(backend)
        except DomainError as error:
            state, detail = "failed", error.detail
        except OSError as error:
            state, detail = "failed", f"{error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": ")
        yield Finding(name=name, state=state, detail=detail)


def _database(backend: Backend) -> Answer:
    if not is_current(backend.database.engine):
        return "failed", "the schema is not of this version; run `preftune migrate`"
    kind = "PostgreSQL" if backend.database.is_postgresql else "SQLite"
    return "ok", f"{kind}, schema of this version"


def _clock(backend: Backend) -> Answer:
    """Leases know the database's clock only, so a difference confuses people, not jobs."""
    before = utc_now()
    there = backend.database.read(lambda session: session.scalar(select(database_now())))
    assert there is not None
    middle = before + (utc_now() - before) / 2
    skew = abs((there - middle).total_seconds())
    if skew > MAX_SKEW_SECONDS:
        return "warning", f"this machine and the database differ by {skew:.0f} s; set up NTP on both"
    return "ok", f"{skew:.2f} s from the database's"


def _store(backend: Backend) -> Answer:
    """Small and large objects, ranges, a listing, deleting: all that jobs ask of it."""
    backend.store.check()
    prefix = f"checks/{uuid.uuid4().hex}/"
    key = prefix + "large"
    try:
        fault = _large_object(backend, key, prefix)
    finally:
        backend.store.delete(key)
    return ("failed", fault) if fault else ("ok", f"{MULTIPART_BYTES >> 20} MiB in parts, ranges, listing, deleting")


def _large_object(backend: Backend, key: str, prefix: str) -> str | None:
    store: ObjectStore = backend.store
    content = os.urandom(1024) * (MULTIPART_BYTES // 1024)
    with scratch_folder(backend.settings, "doctor") as folder:
        sent, back = folder / "sent", folder / "back"
        sent.write_bytes(content)
        store.put_file(key, sent)
        store.get_file(key, back)
        if back.read_bytes() != content:
            return "a large object comes back changed"
    if b"".join(store.read(key, *_RANGE)) != content[slice(*_RANGE)]:
        return "a range of an object comes back wrong"
    if [info.key for info in store.list(prefix)] != [key]:
        return "a stored object is not listed"
    return None


def _broker(backend: Backend) -> Answer:
    backend.queue.check()
    return "ok", f"{backend.settings.effective_broker_url.partition('://')[0]} answers"


def _disk(backend: Backend) -> Answer:
    settings = backend.settings
    rooms = {path: shutil.disk_usage(_existing(path)).free for path in (settings.data_dir, settings.models_dir)}
    detail = ", ".join(f"{path}: {free / 1e9:,.0f} GB free" for path, free in rooms.items())
    if min(rooms.values()) < MIN_FREE_BYTES:
        return "warning", f"{detail}; a job may need more"
    return "ok", detail


def _base_models(backend: Backend) -> Answer:
    refused = refused_base_models(backend.settings.models_dir)
    names = [model.name for model in list_base_models(backend.settings.models_dir)]
    if refused:
        return "warning", "; ".join(f"{name}: {error.detail}" for name, error in sorted(refused.items()))
    if not names:
        return "warning", "none here; `preftune models pull smollm2-135m-instruct` fetches one"
    return "ok", ", ".join(names)


def _keys(backend: Backend) -> Answer:
    if backend.settings.api_key is not None:
        return "ok", "requests need a key"
    if (warning := api_keys.expiry_warning(backend)) is not None:
        return "warning", warning
    if api_keys.has_key(backend):
        return "ok", "requests need a key"
    return (
        "warning",
        "no key yet: the API serves its own user on this machine only; `preftune keys create` makes one",
    )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())
