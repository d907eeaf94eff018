"""Database and store restored elsewhere by the commands of docs/operate/operations.md; a paused job resumes there."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from backends import BASE_MODEL, make_base_model
from deployments import COMMAND, START_SECONDS, Servers, start
from servers import run_postgresql, run_redis, run_s3
from toy_jobs import (
    InProcessWorker,
    check_succeeded,
    submit_toy,
    view,
    wait_for_status,
    wait_for_step,
)
from toy_trainer import Script

from core.database.migrate import upgrade
from core.domain.access import Scope
from core.services.access import api_keys
from core.services.backend import Backend, open_backend
from core.services.jobs import steering
from core.settings import load_settings
from core.storage import keys

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operate" / "operations.md"
QUICK = Script()
SLOW = Script(steps=30, step_seconds=0.1, checkpoint_every=5)
PAUSED_AT = 6


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with run_postgresql() as postgresql, run_s3() as s3, run_redis() as redis:
        yield Servers(postgresql=postgresql, s3=s3, redis=redis)


@contextmanager
def deployed(folder: Path, settings: dict[str, str]) -> Iterator[Backend]:
    make_base_model(folder / "models" / BASE_MODEL)
    quick = {"heartbeat_seconds": 0.2, "lease_seconds": 5, "poll_seconds": 0.1, "broker_url": "none"}
    values = {name.lower(): value for name, value in settings.items()} | quick
    backend = open_backend(load_settings(**values, data_dir=folder / "data", models_dir=folder / "models"))
    yield backend
    backend.close()


def documented(variable: str) -> list[str]:
    """The commands of the section for a database and store of one's own."""
    section = OPERATIONS.read_text(encoding="utf-8").partition("A database and a store of your own")[2]
    block = next(block for block in re.findall(r"(?:^ {4}.+\n)+", section, re.MULTILINE) if variable in block)
    return [line.strip() for line in block.splitlines()]


def run(servers: Servers, folder: Path, settings: dict[str, str], lines: list[str]) -> str:
    """As an operator types them; `preftune` and PostgreSQL's programs are on the PATH."""
    programs = folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    preftune = programs / "preftune"
    preftune.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    preftune.chmod(0o755)
    path = f"{programs}:{servers.postgresql.folder}:/usr/bin:/bin"
    root = OPERATIONS.parents[1]
    exports = [f"export PATH={path}", f"export PYTHONPATH={root}:{root / 'client'}"]
    script = "\n".join(["set -eu", *exports, *lines])
    own = {"DATA_DIR": str(folder / "data"), "MODELS_DIR": str(folder / "models")}
    with start("commands", folder, settings | own, ["sh", "-c", script]) as process:
        code = process.wait(START_SECONDS)
    log = (folder / "commands.log").read_text()
    assert code == 0, log
    return log


def rows(url: str) -> dict[str, str]:
    """A digest of every table."""
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        found = {}
        for (name,) in names:
            texts = connection.execute(f'SELECT t::text FROM "{name}" t').fetchall()  # type: ignore[arg-type]
            found[name] = hashlib.sha256("\n".join(sorted(text for (text,) in texts)).encode()).hexdigest()
    return found


def objects(backend: Backend) -> dict[str, str]:
    return {
        info.key: hashlib.sha256(backend.store.get_bytes(info.key)).hexdigest()
        for info in backend.store.list(keys.ROOT)
    }


def test_a_restored_deployment_goes_on_where_the_other_was(servers: Servers, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    backup = tmp_path / "backup"
    backup.mkdir()
    old = servers.settings("drill_before")
    upgrade(old["DATABASE_URL"])
    with deployed(before, old) as backend:
        token = api_keys.create(backend, "default", "drill", Scope.READ).token
        with InProcessWorker(backend):
            finished = submit_toy(backend, QUICK, reuse=False)
            wait_for_status(backend, finished, "succeeded")
            paused = submit_toy(backend, SLOW, reuse=False)
            wait_for_step(backend, paused, "dpo", PAUSED_AT)
            steering.pause(backend, "default", paused)
            wait_for_status(backend, paused, "paused")
        assert PAUSED_AT <= view(backend, paused).progress.step < SLOW.steps, "in the middle"
        kept_objects = objects(backend)
    kept_rows = rows(old["DATABASE_URL"])
    run(servers, before, old, [f"BACKUP={backup}", *documented("pg_dump")])
    assert (backup / "database.dump").stat().st_size > 0

    new = servers.settings("drill_after")
    run(servers, after, new, [f"BACKUP={backup}", *documented("pg_restore")])
    assert rows(new["DATABASE_URL"]) == kept_rows
    with deployed(after, new) as restored:
        assert objects(restored) == kept_objects
        assert api_keys.authenticate(restored, token) is not None
        check_succeeded(restored, finished, QUICK)
        steering.resume(restored, "default", paused)
        with InProcessWorker(restored):
            wait_for_status(restored, paused, "succeeded", "failed")
        check_succeeded(restored, paused, SLOW)
