"""What must hold after every fault run, read from the database, the store, the logs and the process table.

I1  at most one final event a job, legal moves only, each from where the last one led; attempts counted by ones
I2  the published files are those of an undisturbed run, and the manifest verifies
I3  every metric point once, with the value of an undisturbed run; a reader who followed along holds the same
I4  no committed row without its objects; after the garbage is collected, no object without a row
I5  no write of an attempt that was not the current one was accepted
I6  nothing that was acknowledged is lost
I7  no process, work directory or half-written object is left
I8  no secret and no unhandled traceback in any log
"""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from backends import PROJECT
from faults import audit
from faults.trainers import Expected, Point, curve_point
from sqlalchemy import select
from toy_jobs import attempts_of, events, points
from toy_trainer import Script

from core.clock import utc_now
from core.database.repositories import jobs as job_rows
from core.database.tables.jobs import Job, JobStage
from core.database.tables.objects import Artifact, Checkpoint, CheckpointStatus, Garbage, StageOutput
from core.domain.jobs.job_state import ALLOWED_TRANSITIONS, FINAL_STATUSES, JobStatus
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.services.backend import Backend
from core.services.jobs import artifacts
from core.services.operations import garbage_collection
from core.storage import keys
from core.storage.trees import TreeDamaged, read_manifest

Found = Iterator[str]


@dataclass
class Ledger:
    """What a run was promised, and what it may leave."""

    expected: Callable[[Script], Expected]
    scripts: dict[str, Script] = field(default_factory=dict)
    """Every job whose submission was acknowledged."""
    must_succeed: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    """Jobs whose deletion was acknowledged."""
    curves: dict[str, list[Point]] = field(default_factory=dict)
    """What readers who followed along hold in the end."""
    logs: Sequence[Path] = ()
    secrets: Collection[str] = ()
    expected_tracebacks: Collection[str] = ()
    """Texts of errors whose traceback is logged on purpose."""


def check(backend: Backend, ledger: Ledger) -> list[str]:
    """The violations, as sentences. Nothing may run any more."""
    rules: dict[str, Callable[[], Found]] = {
        "I1": lambda: _moves(backend, ledger),
        "I2": lambda: _results(backend, ledger),
        "I3": lambda: _curves(backend, ledger),
        "I4": lambda: _objects(backend),
        "I5": lambda: (f"{table} of {job} by attempt {n}" for table, job, n in audit.stale_writes(backend.database)),
        "I6": lambda: _promises(backend, ledger),
        "I7": lambda: _leftovers(backend),
        "I8": lambda: _logs(ledger),
    }
    return [f"{name}: {fault}" for name, rule in rules.items() for fault in rule()]


def all_jobs(backend: Backend) -> list[Job]:
    return backend.database.read(lambda session: list(session.scalars(select(Job).order_by(Job.id))))


def _moves(backend: Backend, ledger: Ledger) -> Found:
    for job in all_jobs(backend):
        history = events(backend, job.id)
        if [event.seq for event in history] != list(range(1, len(history) + 1)):
            yield f"{job.id}: events are not numbered without gaps"
        status: JobStatus | None = None
        for event in history:
            if event.to_status is None:
                continue
            first = status is None and event.from_status is None and event.to_status is JobStatus.QUEUED
            follows = status is not None and event.from_status is status
            if not first and not (follows and event.to_status in ALLOWED_TRANSITIONS[event.from_status]):
                yield f"{job.id}: moved from {status} by {event.from_status} to {event.to_status}"
            status = event.to_status
        if status is not job.status:
            yield f"{job.id}: is {job.status}, its events say {status}"
        num_final = sum(event.to_status in FINAL_STATUSES for event in history)
        if num_final != (job.status in FINAL_STATUSES):
            yield f"{job.id}: {num_final} final events"
        numbers = [attempt.attempt for attempt in attempts_of(backend, job.id)]
        if numbers != list(range(1, job.attempt + 1)):
            yield f"{job.id}: attempts {numbers}, the job says {job.attempt}"
        num_starts = sum(event.kind == "started" for event in history)
        if num_starts != job.attempt:
            yield f"{job.id}: {num_starts} starts of {job.attempt} attempts"
        if job.status is JobStatus.RUNNING:
            yield f"{job.id}: still running when nobody is"


def _results(backend: Backend, ledger: Ledger) -> Found:
    for job in all_jobs(backend):
        script = ledger.scripts.get(job.id)
        if job.status is not JobStatus.SUCCEEDED or script is None:
            continue
        if weights_sha256_of(backend, job.id) != ledger.expected(script).weights_sha256:
            yield f"{job.id}: other weights than those of an undisturbed run"
        for file in artifacts.get(backend, PROJECT, job.id).files:
            if hashlib.sha256(backend.store.get_bytes(file.key)).hexdigest() != file.sha256:
                yield f"{job.id}: {file.path} has changed"


def weights_sha256_of(backend: Backend, job_id: str) -> str:
    files = artifacts.get(backend, PROJECT, job_id).files
    weights = next(file for file in files if file.path == "model.safetensors")
    return hashlib.sha256(backend.store.get_bytes(weights.key)).hexdigest()


def curve_of(backend: Backend, job_id: str) -> list[Point]:
    return [curve_point(point.stage.value, point.split, point.step, point.values) for point in points(backend, job_id)]


def _curves(backend: Backend, ledger: Ledger) -> Found:
    for job in all_jobs(backend):
        script = ledger.scripts.get(job.id)
        if script is None:
            continue
        curve, golden = curve_of(backend, job.id), ledger.expected(script).curve
        reused = any(stage.status == "reused" for stage in job_stages(backend, job.id))
        if reused:
            golden = [point for point in golden if point[0] != "sft"]
        if job.status is JobStatus.SUCCEEDED and curve != golden:
            yield f"{job.id}: {len(curve)} points are not the {len(golden)} of an undisturbed run"
        elif not script.kill_at and not set(curve) <= set(ledger.expected(script).curve):
            yield f"{job.id}: points that no undisturbed run has"
        if len({point[:3] for point in curve}) != len(curve):
            yield f"{job.id}: a point twice"
        followed = ledger.curves.get(job.id)
        if followed is not None and followed != curve:
            yield f"{job.id}: a reader holds {len(followed)} points, the job has {len(curve)}"
        divergences = [event for event in events(backend, job.id) if event.kind == "resume_divergence"]
        if divergences:
            yield f"{job.id}: {divergences[0].message}"


def job_stages(backend: Backend, job_id: str) -> list[JobStage]:
    return backend.database.read(lambda session: list(job_rows.list_stages(session, [job_id])))


def _objects(backend: Backend) -> Found:
    collect_everything(backend)
    for prefix, sum_ in named_trees(backend):
        try:
            files = read_manifest(backend.store, StoredTree(prefix=prefix, manifest_sha256=sum_))
        except TreeDamaged as damage:
            yield f"{prefix}: {damage}"
            continue
        yield from _damaged(backend, prefix, files)
    named = {prefix for prefix, _ in named_trees(backend)}
    for info in backend.store.list(keys.ROOT):
        prefix = keys.owning_prefix(info.key)
        if prefix is not None and "/jobs/" in prefix and prefix not in named:
            owner = keys.owner_of(prefix)
            job = next((job for job in all_jobs(backend) if job.id == owner.job_id), None)
            outcomes = [attempt.outcome for attempt in attempts_of(backend, owner.job_id or "")]
            age = (utc_now() - info.modified_at).total_seconds()
            yield f"{info.key}: no row names it; {job and job.status}, attempts {outcomes}, {age:.3f} s old"


def _damaged(backend: Backend, prefix: str, files: list[StoredFile]) -> Found:
    for file in files:
        content = backend.store.get_bytes(prefix + file.path)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            yield f"{prefix}{file.path} is damaged"


def named_trees(backend: Backend) -> list[tuple[str, str]]:
    """(prefix, digest of the manifest) of everything that rows name."""
    kept = Checkpoint.status == CheckpointStatus.COMMITTED
    has_policy = Checkpoint.policy_prefix.is_not(None)
    statements = (
        select(Checkpoint.prefix, Checkpoint.manifest_sha256).where(kept),
        select(Checkpoint.policy_prefix, Checkpoint.policy_manifest_sha256).where(has_policy),
        select(Artifact.prefix, Artifact.manifest_sha256),
        select(StageOutput.prefix, StageOutput.manifest_sha256),
    )
    return backend.database.read(
        lambda session: [(row[0], row[1]) for statement in statements for row in session.execute(statement)]
    )


def collect_everything(backend: Backend) -> None:
    """As the sweeper does, but without its day of patience."""
    scan = garbage_collection.OrphanScan(min_age=timedelta(0), second_look_seconds=0)
    for _ in range(1000):
        if not backend.database.read(lambda session: session.scalar(select(Garbage.prefix).limit(1))):
            break
        garbage_collection.collect(backend)
    for _ in range(1000):
        scan.step(backend)
        if scan._listing is None:
            break


def _promises(backend: Backend, ledger: Ledger) -> Found:
    jobs = {job.id: job for job in all_jobs(backend)}
    for job_id in ledger.scripts:
        if job_id not in jobs and job_id not in ledger.deleted:
            yield f"{job_id} was acknowledged and is gone"
    for job_id in ledger.deleted & jobs.keys():
        yield f"{job_id} was deleted and is there"
    for job_id in ledger.must_succeed & jobs.keys():
        job = jobs[job_id]
        if job.status is not JobStatus.SUCCEEDED:
            outcomes = [attempt.outcome and attempt.outcome.value for attempt in attempts_of(backend, job_id)]
            yield f"{job_id} is {job.status}, not succeeded: {job.error_code} {job.error_detail} {outcomes}"


def _leftovers(backend: Backend) -> Found:
    scratch = backend.settings.scratch_dir / "workers"
    for directory in scratch.iterdir() if scratch.exists() else ():
        yield f"work directory {directory.name} is left"
    here = f"{backend.settings.data_dir.parent}/"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace")
            is_ours = here in arguments or f"{os.readlink(process / 'cwd')}/".startswith(here)
        except OSError:
            continue
        if is_ours and int(process.name) != os.getpid():
            yield f"process {process.name} is left: {arguments!r:.200}"
    temporary = backend.settings.data_dir.parent / "objects" / ".tmp"
    for path in temporary.iterdir() if temporary.exists() else ():
        yield f"half-written object {path.name} is left"


_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:(?:[ |+].*)?\n)*(\S.*)")


def _logs(ledger: Ledger) -> Found:
    for path in ledger.logs:
        text = path.read_text(errors="replace")
        for secret in ledger.secrets:
            if secret in text:
                yield f"{path.name}: a secret"
        for found in _TRACEBACK.finditer(text):
            if not any(expected in found.group(0) for expected in ledger.expected_tracebacks):
                yield f"{path.name}: traceback: {found.group(1):.300}"
