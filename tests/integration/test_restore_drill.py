"""A deployment backed up while it works and restored elsewhere, by the commands of docs/operate/backup.md."""

import hashlib
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import pytest
from backends import BASE_MODEL, PROJECT, add_dataset, make_base_model
from deployments import COMMAND, START_SECONDS, Servers, start
from servers import run_postgresql, run_redis, run_s3
from sqlalchemy import text
from toy_jobs import (
    ROWS,
    InProcessWorker,
    attempts_of,
    check_succeeded,
    checkpoints_of,
    submit_toy,
    view,
    wait_for,
    wait_for_status,
)
from toy_trainer import Script

from core.database.migrate import upgrade
from core.domain.access import Scope
from core.failpoints import VARIABLE
from core.services.access import api_keys
from core.services.backend import Backend, open_backend
from core.services.operations.backups.backup import Progress, back_up
from core.services.operations.backups.restore import check, choose, restore
from core.settings import load_settings
from core.storage import keys

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operate" / "backup.md"
ROOT = PAGE.parents[2]
QUICK = Script()
CHECKPOINTED_AT, HELD_AT = 10, 13


@dataclass(frozen=True)
class Place:
    """Where a deployment is, or is to be."""

    folder: Path
    settings: dict[str, str]

    @property
    def own(self) -> dict[str, str]:
        return self.settings | {"DATA_DIR": str(self.folder / "data"), "MODELS_DIR": str(self.folder / "models")}

    @contextmanager
    def opened(self) -> Iterator[Backend]:
        quick = {"heartbeat_seconds": 0.2, "lease_seconds": 5, "poll_seconds": 0.1, "broker_url": "none"}
        backend = open_backend(load_settings(**({name.lower(): text for name, text in self.own.items()} | quick)))
        yield backend
        backend.close()

    def run(self, *lines: str, **variables: str) -> tuple[int, str]:
        """Exit code and output of lines as an operator types them; `preftune` is on the PATH."""
        programs = self.folder / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        preftune = programs / "preftune"
        preftune.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
        preftune.chmod(0o755)
        exports = [f"export PATH={programs}:/usr/bin:/bin", f"export PYTHONPATH={ROOT}:{ROOT / 'client'}"]
        exports += [f"export {variable}={value!r}" for variable, value in variables.items()]
        script = "\n".join(["set -eu", *exports, *lines])
        with start("commands", self.folder, self.own, ["sh", "-c", script]) as process:
            code = process.wait(START_SECONDS)
        return code, (self.folder / "commands.log").read_text()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with run_postgresql() as postgresql, run_s3() as s3, run_redis() as redis:
        yield Servers(postgresql=postgresql, s3=s3, redis=redis)


@pytest.fixture(params=["sqlite", "postgresql"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, Place]:
    """A deployment with a database and a base model, and an empty place: SQLite and folders, or PostgreSQL and S3."""
    found = []
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        settings = {}
        if request.param == "postgresql":
            settings = request.getfixturevalue("servers").settings(f"drill_{name}_{token_hex(4)}")
        found.append(Place(tmp_path / name, settings))
    before, after = found
    make_base_model(before.folder / "models" / BASE_MODEL)
    upgrade(load_settings(**{name.lower(): text for name, text in before.own.items()}).effective_database_url)
    return before, after


def documented(command: str) -> str:
    """The line of the page with this command, with our folder."""
    page = PAGE.read_text(encoding="utf-8")
    line = next(line.strip() for line in re.findall(r"^ {4}preftune .+$", page, re.MULTILINE) if f" {command} " in line)
    return line.partition(" #")[0].replace("/backups/preftune", '"$BACKUPS"').strip()


def add_whole_dataset(backend: Backend) -> None:
    """One that names only what is stored."""
    add_dataset(backend, "ds_1", num_rows=len(ROWS.splitlines()))
    for name in ("original", "rows.jsonl", "issues.jsonl"):
        backend.store.put_bytes(keys.dataset_prefix(PROJECT, "ds_1") + name, ROWS)
    values = {"sha256": hashlib.sha256(ROWS).hexdigest(), "num_bytes": len(ROWS)}
    statement = "UPDATE datasets SET sha256 = :sha256, rows_sha256 = :sha256, num_bytes = :num_bytes"
    backend.database.write(lambda session: session.execute(text(statement), values))


def has_checkpoint(backend: Backend, job_id: str) -> bool:
    return ("dpo", CHECKPOINTED_AT) in [(one.stage.value, one.step) for one in checkpoints_of(backend, job_id)]


def objects(backend: Backend) -> dict[str, str]:
    return {
        info.key: hashlib.sha256(backend.store.get_bytes(info.key)).hexdigest()
        for info in backend.store.list(keys.ROOT)
    }


def test_a_deployment_backed_up_at_work_goes_on_elsewhere(places: tuple[Place, Place], tmp_path: Path) -> None:
    before, after = places
    gate = tmp_path / "gate"
    gate.mkdir()
    script = Script(steps=20, checkpoint_every=CHECKPOINTED_AT, hold_at={"1": HELD_AT}, hold_until=str(gate))
    with before.opened() as backend:
        add_whole_dataset(backend)
        token = api_keys.create(backend, "default", "drill", Scope.READ).token
        with InProcessWorker(backend):
            finished = submit_toy(backend, QUICK, reuse=False)
            wait_for_status(backend, finished, "succeeded")
            running = submit_toy(backend, script, reuse=False)
            wait_for(lambda: has_checkpoint(backend, running), "its checkpoint of DPO")
            kept = objects(backend)
            code, told = before.run(documented("backup"), BACKUPS=str(tmp_path / "backups"))
            assert code == 0, told
            assert view(backend, running).status.value == "running", "nobody was stopped"
            (gate / "1").touch()
            wait_for_status(backend, running, "succeeded")
        check_succeeded(backend, running, script)
    code, told = after.run(documented("restore"), BACKUPS=str(tmp_path / "backups"))
    assert code == 0, told
    with after.opened() as restored:
        assert objects(restored) == kept
        assert api_keys.authenticate(restored, token) is not None
        check_succeeded(restored, finished, QUICK)
        with InProcessWorker(restored):
            wait_for_status(restored, running, "succeeded", "failed")
        check_succeeded(restored, running, script)
        resumed = attempts_of(restored, running)[-1]
        assert (resumed.attempt, resumed.resume_step) == (2, CHECKPOINTED_AT)


@pytest.mark.parametrize("places", ["sqlite"], indirect=True)
def test_a_backup_that_is_killed_leaves_the_earlier_one(places: tuple[Place, Place], tmp_path: Path) -> None:
    before, after = places
    backups = tmp_path / "backups"
    with before.opened() as backend:
        add_whole_dataset(backend)
        with InProcessWorker(backend):
            job_id = submit_toy(backend, QUICK, reuse=False)
            wait_for_status(backend, job_id, "succeeded")
            earlier = back_up(backend, backups)
            later = submit_toy(backend, QUICK, reuse=False)
            wait_for_status(backend, later, "succeeded")
        kills = [f"{VARIABLE}={point}=kill@1" for point in ("backup.blob_stored", "backup.manifest_written")]
        lines = [f"{kill} {documented('backup')} || echo ended with $?" for kill in kills]
        _, told = before.run(*lines, BACKUPS=str(backups))
        assert told.count(f"ended with {128 + signal.SIGKILL}") == len(kills), told
        repository, newest = choose(backups)
        assert newest.id == earlier.id
        check(repository, newest)
        told_of: list[Progress] = []
        assert back_up(backend, backups, keep=1, tell=told_of.append).id == choose(backups)[1].id != earlier.id
        assert told_of[-1].num_copied == 0, "what the killed ones had copied is taken up"
        assert repository.names() == [choose(backups)[1].id]
    with after.opened() as empty:
        restore(empty, *choose(backups))
        check_succeeded(empty, job_id, QUICK)
        check_succeeded(empty, later, QUICK)
