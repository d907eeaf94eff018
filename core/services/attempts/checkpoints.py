"""Checkpoints and stage outputs: rows that make uploaded objects exist. Fenced.

Two rules of letting go: of the state to resume from the newest two stay; of the policies that users load, the newest
`keep_checkpoints` and the best.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import attempts as attempt_rows
from core.database.repositories import garbage, objects, stage_builds
from core.database.repositories.events import EventDraft, append_event
from core.database.tables.jobs import Job
from core.database.tables.objects import Checkpoint, CheckpointStatus, StageOutput
from core.domain.jobs.job_state import Stage
from core.domain.jobs.stored_files import StoredTree
from core.failpoints import reach
from core.services.attempts.claimed_job import ClaimedJob, fenced
from core.services.ids import new_id
from core.services.jobs.checkpoint_policies import find_best, validation_values

MIN_KEPT = 2
"""A corrupt newest checkpoint must leave one to fall back to."""


@dataclass(frozen=True, kw_only=True)
class NewCheckpoint:
    """A completely uploaded checkpoint, its manifest last."""

    stage: Stage
    step: int
    tree: StoredTree
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class NewStageOutput:
    """A completely uploaded stage output, its manifest last."""

    stage: Stage
    digest: str
    """SHA-256 of all that determines the output, in hexadecimal."""
    tree: StoredTree
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class ReusableOutput:
    job_id: str
    tree: StoredTree


def commit_checkpoint(claim: ClaimedJob, new: NewCheckpoint) -> str:
    """Commit a checkpoint, reset the crash count, delete checkpoints over the number kept; return its id."""
    committed_id = _commit_checkpoint(claim, new, new_id("ckpt"))
    reach("checkpoint.committed")
    return committed_id


@fenced
def _commit_checkpoint(session: Session, job: Job, claim: ClaimedJob, new: NewCheckpoint, checkpoint_id: str) -> str:
    known = objects.find_checkpoint_at(session, job.id, new.stage, new.step, claim.attempt)
    if known is not None:
        return known.id
    session.add(
        Checkpoint(
            id=checkpoint_id,
            job_id=job.id,
            project_id=job.project_id,
            attempt=claim.attempt,
            stage=new.stage,
            step=new.step,
            status=CheckpointStatus.COMMITTED,
            prefix=new.tree.prefix,
            manifest_sha256=new.tree.manifest_sha256,
            num_bytes=new.num_bytes,
            created_at=database_now(),
        )
    )
    job.crash_count = 0
    attempt_rows.find_attempt(session, job.id, claim.attempt).num_checkpoints += 1
    message = f"Checkpoint saved ({new.stage.value} step {new.step})."
    data = {"checkpoint_id": checkpoint_id, "stage": new.stage, "step": new.step, "num_bytes": new.num_bytes}
    append_event(session, job, EventDraft(kind="checkpoint", message=message, data=data, actor=claim.worker))
    session.flush()
    _prune(session, job)
    reach("checkpoint.in_transaction")
    return checkpoint_id


@fenced
def commit_policy(
    session: Session, job: Job, claim: ClaimedJob, checkpoint_id: str, tree: StoredTree, num_bytes: int
) -> None:
    """Publish the policy of a committed checkpoint and delete those over the number kept."""
    checkpoint = objects.find_checkpoint(session, job.id, checkpoint_id)
    if checkpoint is None:  # pruned or found corrupt meanwhile
        garbage.add_garbage(session, job.project_id, tree.prefix, "policy of a checkpoint that is gone")
        return
    checkpoint.policy_prefix = tree.prefix
    checkpoint.policy_manifest_sha256 = tree.manifest_sha256
    checkpoint.policy_num_bytes = num_bytes
    session.flush()
    _prune_policies(session, job)


@fenced
def mark_checkpoint_corrupt(session: Session, job: Job, claim: ClaimedJob, checkpoint_id: str, detail: str) -> None:
    """Mark a checkpoint that failed verification; `begin` chooses an earlier one. `detail` is for the user."""
    checkpoint = objects.find_checkpoint(session, job.id, checkpoint_id)
    if checkpoint is None:
        return
    checkpoint.status = CheckpointStatus.CORRUPT
    garbage.add_garbage(session, job.project_id, checkpoint.prefix, "corrupt checkpoint")
    where = f"{checkpoint.stage.value} step {checkpoint.step}"
    message = f"The checkpoint of {where} is damaged and is not used: {detail}"
    data = {"checkpoint_id": checkpoint_id, "stage": checkpoint.stage, "step": checkpoint.step}
    event = EventDraft(kind="checkpoint_corrupt", level="warning", message=message, data=data, actor=claim.worker)
    append_event(session, job, event)
    reach("checkpoint.set_aside")


def find_stage_output(claim: ClaimedJob, digest: str) -> ReusableOutput | None:
    """Return a finished output of this project with that digest; None if the job has `reuse: false`."""
    if not claim.spec.get("reuse", True):
        return None
    database = claim.backend.database
    row = database.read(lambda session: objects.find_stage_output(session, claim.project_id, digest))
    if row is None:
        return None
    return ReusableOutput(job_id=row.job_id, tree=row.tree)


def commit_stage_output(claim: ClaimedJob, new: NewStageOutput) -> None:
    """Commit an output for later jobs of the project. If another job was first, these objects are deleted."""
    _commit_stage_output(claim, new)
    reach("stage_output.committed")


@fenced
def _commit_stage_output(session: Session, job: Job, claim: ClaimedJob, new: NewStageOutput) -> None:
    stage_builds.forget_build(session, job.project_id, new.digest)
    known = objects.find_stage_output(session, job.project_id, new.digest)
    if known is not None:
        if known.prefix != new.tree.prefix:
            garbage.add_garbage(session, job.project_id, new.tree.prefix, "stage output made twice")
        return
    session.add(
        StageOutput(
            project_id=job.project_id,
            digest=new.digest,
            stage=new.stage,
            job_id=job.id,
            attempt=claim.attempt,
            prefix=new.tree.prefix,
            manifest_sha256=new.tree.manifest_sha256,
            num_bytes=new.num_bytes,
            created_at=database_now(),
        )
    )
    reach("stage_output.in_transaction")


@fenced
def drop_stage_output(session: Session, job: Job, claim: ClaimedJob, digest: str) -> None:
    """Delete an output that failed verification, so that no job reuses it."""
    row = objects.find_stage_output(session, job.project_id, digest)
    if row is not None:
        garbage.add_garbage(session, job.project_id, row.prefix, "corrupt stage output")
        session.delete(row)


def _prune(session: Session, job: Job) -> None:
    """Keep the newest checkpoints to resume from; the others' objects are deleted after their rows."""
    for checkpoint in objects.list_checkpoints(session, job.id)[MIN_KEPT:]:
        checkpoint.status = CheckpointStatus.DELETED
        garbage.add_garbage(session, job.project_id, checkpoint.prefix, "pruned checkpoint")


def _prune_policies(session: Session, job: Job) -> None:
    policies = objects.list_policies(session, job.id)
    best = find_best(job, policies, validation_values(session, job.id, policies))
    for checkpoint in policies[int(job.spec.get("keep_checkpoints", MIN_KEPT)) :]:
        if checkpoint is best or checkpoint.policy_prefix is None:
            continue
        garbage.add_garbage(session, job.project_id, checkpoint.policy_prefix, "pruned policy")
        checkpoint.policy_prefix = checkpoint.policy_manifest_sha256 = checkpoint.policy_num_bytes = None
