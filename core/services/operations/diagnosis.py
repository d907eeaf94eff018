"""Diagnosis of this deployment as seen from this machine; each finding says what to do."""

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core.base_models.directory import list_base_models, refused_base_models
from core.clock import utc_now
from core.database.columns import database_now
from core.database.engine import POSTGRESQL_TIMEOUTS
from core.database.migrate import is_current, is_usable
from core.database.repositories.roster import largest_queued_gang
from core.domain.errors import DomainError
from core.outages import reason_of
from core.services.access import api_keys, projects
from core.services.access.disk_reserve import room_of
from core.services.backend import Backend
from core.services.datasets.scratch import scratch_folder
from core.services.operations.roster import list_processes
from core.services.transactions import reads
from core.storage.object_store import ObjectStore, StoreUnavailable
from core.telemetry.logging import redactor_of
from core.wording import counted

MAX_SKEW_SECONDS = 5.0
MIN_FREE_BYTES = 10 * 1024**3
MULTIPART_BYTES = 33 * 1024**2
"""More than goes to S3 in one piece."""
_REPEATED_STATEMENTS = 7
"""More than drivers wait for before they prepare one."""
_NO_LEFTOVERS_SECONDS = 10 * 365 * 24 * 3600.0
_NEED_SCHEMA = ("keys", "quotas", "nodes")
_NEARLY_FULL = 0.9
_MAX_NAMED = 5
_RANGE = (MULTIPART_BYTES // 2 - 7, MULTIPART_BYTES // 2 + 9)

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, kw_only=True)
class CheckFinding:
    name: str
    state: State
    detail: str


Answer = tuple[State, str]


def diagnose(backend: Backend) -> Iterator[CheckFinding]:
    """Yield one finding after the other. Raises nothing."""
    checks: tuple[tuple[str, Callable[[Backend], Answer]], ...] = (
        ("database", _database),
        ("clock", _clock),
        ("store", _store),
        ("broker", _broker),
        ("disk", _disk),
        ("base models", _base_models),
        ("keys", _keys),
        ("quotas", _quotas),
        ("nodes", _nodes),
    )
    is_failed = False
    for name, check in checks:
        if name in _NEED_SCHEMA and is_failed:
            continue
        try:
            state, detail = check(backend)
        except DomainError as error:
            state, detail = "failed", _told(backend, error)
        except OSError as error:
            state, detail = "failed", f"{error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": ")
        is_failed = is_failed or (name == "database" and state == "failed")
        yield CheckFinding(name=name, state=state, detail=detail)


def _told(backend: Backend, error: DomainError) -> str:
    """Return the error's detail with its cause, which is for operators, without the secrets that we hold."""
    if error.__cause__ is None:
        return error.detail
    event: dict[str, Any] = {"detail": f"{error.detail.removesuffix('.')}: {reason_of(error.__cause__)}"}
    redactor_of(backend.settings)(None, "", event)
    return str(event["detail"])


def _database(backend: Backend) -> Answer:
    if not is_usable(backend.database.engine):
        return "failed", "the schema is not of this version; run `preftune migrate`"
    if lost := _lost_timeouts(backend):
        wanted = "; ".join(f"ALTER ROLE <user> SET {name} = {POSTGRESQL_TIMEOUTS[name]}" for name in lost)
        return "warning", f"{', '.join(lost)} not in force, as a pooler drops them; run `{wanted}`"
    kind = "PostgreSQL" if backend.database.is_postgresql else "SQLite"
    age = "of this version" if is_current(backend.database.engine) else "of a newer version, which this one works with"
    return "ok", f"{kind}, schema {age}"


def _lost_timeouts(backend: Backend) -> list[str]:
    """Return requested timeouts that are not in force, over several statements as a pooler may mix them up."""
    if not backend.database.is_postgresql:
        return []
    return _ignored_timeouts(backend)


@reads
def _ignored_timeouts(session: Session) -> list[str]:
    asked = text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)")
    for _ in range(_REPEATED_STATEMENTS):
        rows = session.execute(asked, {"names": list(POSTGRESQL_TIMEOUTS)}).all()
    found = {str(row[0]): str(row[1]) for row in rows}
    return [name for name, value in POSTGRESQL_TIMEOUTS.items() if found.get(name) != str(value)]


def _clock(backend: Backend) -> Answer:
    """Compare clocks; leases use only the database's, so a difference confuses people, not jobs."""
    before = utc_now()
    there = backend.database.read(lambda session: session.scalar(select(database_now())))
    assert there is not None
    middle = before + (utc_now() - before) / 2
    skew = abs((there - middle).total_seconds())
    if skew > MAX_SKEW_SECONDS:
        return "warning", f"this machine and the database differ by {skew:.0f} s; set up NTP on both"
    return "ok", f"{skew:.2f} s from the database's"


def _store(backend: Backend) -> Answer:
    """Test what jobs need of the store: large, small and empty objects, ranges, a listing, deleting."""
    backend.store.check()
    prefix = f"checks/{uuid.uuid4().hex}/"
    names = ("empty", "large", "small")
    try:
        fault = _files(backend, prefix)
    finally:
        for name in names:
            backend.store.delete(prefix + name)
    if fault:
        return "failed", fault
    try:
        backend.store.remove_leftovers(_NO_LEFTOVERS_SECONDS)
    except StoreUnavailable as error:
        return "warning", f"unfinished uploads of dead workers cannot be listed or ended: {_told(backend, error)}"
    if backend.store.takes_any_key():
        return "warning", "the store serves whoever reaches it, with any key; let nobody but the service reach it"
    detail = f"{MULTIPART_BYTES >> 20} MiB in parts, small and empty files, ranges, listing, deleting"
    if backend.store.ignores_conditions():
        detail += "; conditional writes are ignored (If-None-Match), which nothing here rests on"
    return "ok", detail


def _files(backend: Backend, prefix: str) -> str | None:
    for name, content in (("small", b"small"), ("empty", b"")):
        with scratch_folder(backend.settings, "doctor") as folder:
            sent, back = folder / "sent", folder / "back"
            sent.write_bytes(content)
            backend.store.put_file(prefix + name, sent)
            backend.store.get_file(prefix + name, back)
            if back.read_bytes() != content:
                return f"an object of {len(content)} bytes comes back changed"
    return _large_object(backend, prefix + "large", prefix)


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
    if sorted(info.key for info in store.list(prefix)) != [prefix + name for name in ("empty", "large", "small")]:
        return "a stored object is not listed"
    return None


def _broker(backend: Backend) -> Answer:
    backend.queue.check()
    return "ok", f"{backend.settings.effective_broker_url.partition('://')[0]} answers"


def _disk(backend: Backend) -> Answer:
    settings = backend.settings
    rooms = {path: shutil.disk_usage(_existing(path)).free for path in (settings.data_dir, settings.models_dir)}
    detail = ", ".join(f"{path}: {free / 1e9:,.0f} GB free" for path, free in rooms.items())
    reached = [room for room in room_of(settings) if room.is_reached]
    if reached:
        what = " and ".join(room.what for room in reached)
        return (
            "failed",
            f"{detail}; below the reserve for {what}: no upload and no job is taken in, running ones may end",
        )
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


def _quotas(backend: Backend) -> Answer:
    found = projects.list_projects(backend)
    full = [
        f"{project.id} stores {project.stored_bytes:,} of {most:,} bytes"
        for project in found
        if (most := project.limits.max_stored_bytes) is not None and project.stored_bytes >= _NEARLY_FULL * most
    ]
    if full:
        return "warning", "; ".join(full[:_MAX_NAMED])
    free = [project.id for project in found if project.limits.max_stored_bytes is None]
    if len(found) > 1 and free:
        named = ", ".join(free[:_MAX_NAMED])
        return "warning", f"no bound on what {named} may store; `preftune projects limit <project> --stored-bytes <n>`"
    return "ok", f"{sum(project.stored_bytes for project in found):,} bytes stored"


def _nodes(backend: Backend) -> Answer:
    """Compare what jobs on several nodes ask for with the workers that take such."""
    asked, able = _asked_and_able(backend)
    most = max(able.values(), default=0)
    if asked is not None and asked[1] > most:
        return (
            "warning",
            f"{asked[0]} waits for {asked[1]} workers of one kind, and {most} with PREFTUNE_NODE_ADDRESS are alive; "
            "start more, or submit it with fewer nodes",
        )
    return "ok", f"{counted(sum(able.values()), 'worker')} for jobs on several nodes"


@reads
def _asked_and_able(session: Session) -> tuple[tuple[str, int] | None, Counter[tuple[str, int]]]:
    """Return the largest queued gang, and how many living workers of each kind take part in such."""
    alive = [process for process in list_processes(session) if process.takes_nodes and process.state != "silent"]
    able = Counter((process.device or "", process.num_devices) for process in alive)
    return largest_queued_gang(session), able


def _existing(path: Path) -> Path:
    """Return the path, or the nearest existing folder above it."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())
