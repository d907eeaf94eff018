"""Backups of a deployment in use: what they hold, what they refuse, and how they end the leases of whoever worked."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from backends import (
    PROJECT,
    add_dataset,
    checkpoint_with_policy,
    claim,
    make_due,
    point,
    publication,
    set_architecture,
    status,
    submit,
)
from sqlalchemy import text
from toy_jobs import attempts_of, events

from core.domain.errors import Fenced
from core.domain.exports import ExportFormat
from core.domain.jobs.job_queries import JobFilter
from core.domain.jobs.stored_files import StoredFile
from core.services.access.audit import acting, operator_here
from core.services.attempts import lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.backend import Backend, open_backend
from core.services.jobs import jobs
from core.services.operations import garbage_collection
from core.services.operations.backups import backup, holding
from core.services.operations.backups.repository import BackupError, Manifest
from core.services.operations.backups.restore import check, choose, restore
from core.services.requests import exports
from core.settings import Settings
from core.storage import keys
from core.storage.local import LocalObjectStore
from core.storage.object_store import ObjectInfo

FILES = {"model.safetensors": b"w" * 3000, "config.json": b"{}"}


@pytest.fixture
def target(request: pytest.FixtureRequest, backend: Backend, tmp_path: Path) -> Iterator[Backend]:
    """An empty deployment of the same kind."""
    url = None
    if backend.database.is_postgresql:
        url = request.getfixturevalue("postgresql").create_database("restored")
    folder = tmp_path / "elsewhere"
    other = open_backend(Settings(data_dir=folder, models_dir=folder / "models", database_url=url))
    yield other
    other.close()
    if url is not None:
        request.getfixturevalue("postgresql").drop_database("restored")


def make_job(backend: Backend) -> ClaimedJob:
    """One that runs, behind a checkpoint whose policy is stored."""
    add_dataset(backend)
    for name in ("original", "rows.jsonl", "issues.jsonl"):
        backend.store.put_bytes(keys.dataset_prefix(PROJECT, "ds_1") + name, b"{}")
    values = {"sha256": hashlib.sha256(b"{}").hexdigest()}
    backend.database.write(
        lambda session: session.execute(text("UPDATE datasets SET sha256 = :sha256, num_bytes = 2"), values)
    )
    submit(backend)
    held = claim(backend)
    lifecycle.begin(held)
    recording.record_points(held, [point(1)])
    checkpoint_with_policy(backend, held, 1, FILES)
    manifest = "UPDATE checkpoints SET manifest_sha256 = :sha256"  # the checkpoint itself is an empty tree
    empty = b'{"version": 1, "files": []}'
    prefix = keys.checkpoint_prefix(PROJECT, held.job_id, held.attempt_name, "dpo", 1)
    backend.store.put_bytes(prefix + "manifest.json", empty)
    values = {"sha256": hashlib.sha256(empty).hexdigest()}
    backend.database.write(lambda session: session.execute(text(manifest), values))
    return held


def contents(backend: Backend) -> dict[str, bytes]:
    return {info.key: backend.store.get_bytes(info.key) for info in backend.store.list(keys.ROOT)}


def put_back(target: Backend, folder: Path) -> Manifest:
    repository, manifest = choose(folder)
    restore(target, repository, manifest)
    return manifest


def test_a_running_job_goes_on_elsewhere_and_its_old_worker_is_fenced(
    backend: Backend, target: Backend, tmp_path: Path
) -> None:
    held = make_job(backend)
    manifest = backup.back_up(backend, tmp_path / "backups")
    assert manifest.lost == []
    kept = contents(backend)
    with acting(operator_here()):
        put_back(target, tmp_path / "backups")
    assert contents(target) == kept
    assert status(backend, held.job_id) == "running", "the backup has disturbed nobody"
    assert status(target, held.job_id) == "queued"
    assert "restored from backup" in events(target, held.job_id)[-1].message
    there = replace(held, backend=target)
    for write in (
        lambda: lifecycle.heartbeat(there),
        lambda: lifecycle.finish_succeeded(there, publication(target, held)),
    ):
        with pytest.raises(Fenced):
            write()
    make_due(target)
    successor = claim(target, "successor")
    assert successor.attempt == 2
    resumed = lifecycle.begin(successor)
    assert resumed is not None
    assert resumed.step == 1
    assert [attempt.outcome for attempt in attempts_of(target, held.job_id)] == ["drained", None]


def test_requests_that_were_being_done_are_done_again(backend: Backend, target: Backend, tmp_path: Path) -> None:
    set_architecture(backend.settings, "LlamaForCausalLM")
    held = make_job(backend)
    lifecycle.finish_succeeded(held, publication(backend, held))
    asked = exports.create(backend, PROJECT, held.job_id, ExportFormat.GGUF_Q8_0)
    taken = exports.claim(backend, 600)
    assert taken is not None
    backup.back_up(backend, tmp_path / "backups")
    put_back(target, tmp_path / "backups")
    again = exports.claim(target, 600)
    assert again is not None
    assert again.lease.id == taken.lease.id == asked.id
    late = StoredFile(path=taken.path, key=taken.prefix + "model.gguf", num_bytes=1, sha256="0" * 64)
    exports.finish(target, taken, late, {})
    assert exports.get(target, PROJECT, held.job_id, asked.id).status == "running", "who had it before is fenced"


def test_the_second_backup_copies_what_is_new_and_old_ones_go(backend: Backend, tmp_path: Path) -> None:
    held = make_job(backend)
    told: list[backup.Progress] = []
    first = backup.back_up(backend, tmp_path / "backups", tell=told.append)
    assert told[-1].num_copied == told[-1].num_objects == first.num_objects
    lifecycle.finish_succeeded(held, publication(backend, held))
    second = backup.back_up(backend, tmp_path / "backups", keep=1, tell=told.append)
    assert (told[-1].num_copied, second.num_objects) == (1, first.num_objects + 1)
    repository, newest = choose(tmp_path / "backups")
    assert (repository.names(), newest.id) == ([second.id], second.id)
    check(repository, newest)
    named = {one.sha256 for one in repository.objects(newest)} | {table.sha256 for table in newest.tables}
    assert {path.name for path in (tmp_path / "backups" / "blobs").glob("*/*")} == named


def test_files_of_a_backup_are_private(backend: Backend, tmp_path: Path) -> None:
    make_job(backend)
    backup.back_up(backend, tmp_path / "backups")
    for path in (tmp_path / "backups", *(tmp_path / "backups").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_collector_waits_for_a_backup(backend: Backend, tmp_path: Path) -> None:
    held = make_job(backend)
    lifecycle.finish_succeeded(held, publication(backend, held))
    with holding.garbage_held(backend):
        jobs.delete(backend, PROJECT, held.job_id)
        before = contents(backend)
        assert garbage_collection.collect(backend) == 0
        assert contents(backend) == before
    assert garbage_collection.collect(backend) > 0
    assert not [key for key in contents(backend) if held.job_id in key]


def test_a_backup_says_what_the_store_had_lost(backend: Backend, target: Backend, tmp_path: Path) -> None:
    held = make_job(backend)
    key = keys.policy_prefix(PROJECT, held.job_id, held.attempt_name, "dpo", 1) + "config.json"
    backend.store.put_bytes(key, b"[]")
    assert backup.back_up(backend, tmp_path / "backups").lost == [key]
    backend.store.delete(key)
    assert backup.back_up(backend, tmp_path / "backups").lost == [key]
    put_back(target, tmp_path / "backups")
    assert status(target, held.job_id) == "queued", "all else is there"


def test_objects_that_go_during_a_backup_end_it(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as by a collector of an earlier version, which knows of no backups."""
    held = make_job(backend)
    earlier = backup.back_up(backend, tmp_path / "backups")
    lifecycle.finish_succeeded(held, publication(backend, held))
    monkeypatch.setattr(garbage_collection, "is_held", lambda _: False)

    class Deleting(LocalObjectStore):
        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            """The backup lists the store once it has copied the database."""
            if held.job_id in [job.id for job in jobs.list_page(backend, PROJECT, JobFilter()).data]:
                jobs.delete(backend, PROJECT, held.job_id)
                garbage_collection.collect(backend)
            return super().list(prefix)

    deleting = replace(backend, store=Deleting(tmp_path / "objects"))
    with pytest.raises(BackupError, match="deleted while the backup was made"):
        backup.back_up(deleting, tmp_path / "backups")
    repository, newest = choose(tmp_path / "backups")
    assert newest.id == earlier.id
    check(repository, newest)


@pytest.mark.parametrize("damage", ["changed", "missing", "list"])
def test_a_damaged_backup_is_refused_before_anything_is_written(
    backend: Backend, target: Backend, tmp_path: Path, damage: str
) -> None:
    make_job(backend)
    manifest = backup.back_up(backend, tmp_path / "backups")
    blob = tmp_path / "backups" / "blobs" / hashlib.sha256(FILES["model.safetensors"]).hexdigest()[:2]
    (path,) = (path for path in blob.iterdir() if path.stat().st_size == 3000)
    if damage == "changed":
        path.write_bytes(b"W" * 3000)
    elif damage == "missing":
        path.unlink()
    else:
        listed = tmp_path / "backups" / "backups" / manifest.id / "objects.jsonl"
        listed.write_text(listed.read_text().replace("ds_1", "ds_2"))
    with pytest.raises(BackupError, match=r"damaged|missing"):
        put_back(target, tmp_path / "backups")
    assert contents(target) == {}


def test_only_an_empty_place_is_restored_into(backend: Backend, target: Backend, tmp_path: Path) -> None:
    make_job(backend)
    backup.back_up(backend, tmp_path / "backups")
    target.store.put_bytes(keys.ROOT + "default/jobs/job_x/a1/artifact/a", b"mine")
    with pytest.raises(BackupError, match="store holds objects already, such as projects/default/jobs/job_x"):
        put_back(target, tmp_path / "backups")
    target.store.delete(keys.ROOT + "default/jobs/job_x/a1/artifact/a")
    # What a restore that broke off has written is not in the way of the next.
    target.store.put_bytes(keys.dataset_original(PROJECT, "ds_1"), b"{}")
    put_back(target, tmp_path / "backups")
    with pytest.raises(BackupError, match="database holds"):
        put_back(target, tmp_path / "backups")


def test_other_folders_and_names_are_refused(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(BackupError, match="holds other files"):
        backup.back_up(backend, tmp_path / "mine")
    with pytest.raises(BackupError, match="no whole backup"):
        choose(tmp_path / "mine")
    only = backup.back_up(backend, tmp_path / "backups")
    with pytest.raises(BackupError, match=f"has no backup yesterday; it has {only.id}"):
        choose(tmp_path / "backups", "yesterday")


def test_a_base_model_comes_along_and_another_of_its_name_is_in_the_way(
    backend: Backend, target: Backend, tmp_path: Path
) -> None:
    shutil.rmtree(target.settings.models_dir, ignore_errors=True)
    backup.back_up(backend, tmp_path / "backups")
    folder = target.settings.models_dir / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("other")
    with pytest.raises(BackupError, match=r"is not the file of the backup"):
        put_back(target, tmp_path / "backups")
    shutil.rmtree(folder)
    put_back(target, tmp_path / "backups")
    files = {path.name: path.read_bytes() for path in (backend.settings.models_dir / "tiny").iterdir()}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_base_model_of_the_same_size_is_another_by_its_bytes(
    backend: Backend, target: Backend, tmp_path: Path
) -> None:
    shutil.rmtree(target.settings.models_dir, ignore_errors=True)
    backup.back_up(backend, tmp_path / "backups")
    mine = target.settings.models_dir / "tiny"
    shutil.copytree(backend.settings.models_dir / "tiny", mine)
    right = (mine / "config.json").read_bytes()
    other = right[:-1] + b" "
    (mine / "config.json").write_bytes(other)
    with pytest.raises(BackupError, match=r"config.json is not the file of the backup"):
        put_back(target, tmp_path / "backups")
    assert (contents(target), (mine / "config.json").read_bytes()) == ({}, other)
    (mine / "config.json").write_bytes(right)
    put_back(target, tmp_path / "backups")


def test_what_has_rotted_is_mended_by_the_command_that_is_named(
    backend: Backend, target: Backend, tmp_path: Path
) -> None:
    make_job(backend)
    folder = tmp_path / "backups"
    first = backup.back_up(backend, folder)
    blob = choose(folder)[0].blob(hashlib.sha256(FILES["model.safetensors"]).hexdigest())
    blob.write_bytes(b"W" * 3000)
    told: list[str] = []
    backup.back_up(backend, folder, warn=told.append)
    with pytest.raises(BackupError, match=f"is damaged.*`preftune backup --reread {folder}`"):
        put_back(target, folder)
    assert told == []
    backup.back_up(backend, folder, rereads=True, warn=told.append)
    (line,) = told
    assert "model.safetensors: earlier backups hold a damaged copy" in line
    check(*choose(folder, first.id))
    put_back(target, folder)
    backup.back_up(backend, folder, rereads=True, warn=told.append)
    assert told == [line]


def test_the_rotted_manifest_of_a_policy_does_not_end_a_backup(backend: Backend, tmp_path: Path) -> None:
    held = make_job(backend)
    folder = tmp_path / "backups"
    backup.back_up(backend, folder)
    key = keys.policy_prefix(PROJECT, held.job_id, held.attempt_name, "dpo", 1) + "manifest.json"
    right = backend.store.get_bytes(key)
    blob = choose(folder)[0].blob(hashlib.sha256(right).hexdigest())
    blob.write_bytes(b"x" * len(right))
    told: list[str] = []
    assert backup.back_up(backend, folder, warn=told.append).lost == []
    assert [line.partition(": ")[0] for line in told] == [key]
    assert blob.read_bytes() == right


@pytest.mark.parametrize("damage", ["manifest.json", "objects.jsonl"])
def test_an_earlier_backup_that_cannot_be_read_is_a_warning_and_keeps_its_contents(
    backend: Backend, tmp_path: Path, damage: str
) -> None:
    held = make_job(backend)
    folder = tmp_path / "backups"
    first = backup.back_up(backend, folder)
    (folder / "backups" / first.id / damage).write_bytes(b"\xff{")
    lifecycle.finish_succeeded(held, publication(backend, held))
    jobs.delete(backend, PROJECT, held.job_id)
    garbage_collection.collect(backend)
    before = {path.name for path in (folder / "blobs").glob("*/*")}
    told: list[str] = []
    second = backup.back_up(backend, folder, warn=told.append)
    (line,) = told
    assert line.startswith(f"{second.id} is whole, but backup {first.id}")
    assert f"until {folder / 'backups' / first.id} is deleted" in line
    check(*choose(folder))
    assert before <= {path.name for path in (folder / "blobs").glob("*/*")}
    shutil.rmtree(folder / "backups" / first.id)
    third = backup.back_up(backend, folder, warn=told.append)
    assert told == [line], "the advice works"
    repository = choose(folder)[0]
    named = {one.sha256 for kept in (second, third) for one in (*repository.objects(kept), *kept.tables)}
    assert {path.name for path in (folder / "blobs").glob("*/*")} == named


def test_a_store_that_gives_back_other_bytes_is_not_restored_into(
    backend: Backend, target: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(backend)
    backup.back_up(backend, tmp_path / "backups")

    class Forgetful(LocalObjectStore):
        def put_file(self, key: str, source: Path, *, is_final: bool = False) -> None:
            self.put_bytes(key, b"other")

    broken = replace(target, store=Forgetful(tmp_path / "forgetful"))
    with pytest.raises(Exception, match="gives back other bytes"):
        put_back(broken, tmp_path / "backups")
    put_back(target, tmp_path / "backups")
