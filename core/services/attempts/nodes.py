"""The nodes of one attempt: what each lets the others know, through the database.

Node 0 records, commits and ends the attempt. The other nodes pulse, store their files of checkpoints, and report how
their part ended. Everything raises Fenced once the attempt is over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import attempts as attempt_rows
from core.database.repositories import gang_nodes, objects
from core.database.tables.jobs import Job
from core.domain.errors import Fenced
from core.domain.jobs.job_state import AttemptOutcome
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.services.attempts import requeue
from core.services.attempts.claimed_job import ClaimedJob, fenced
from core.services.backend import Backend

_FORGOTTEN_LEASES = 10
CheckpointName = str
"""Name of a checkpoint's directory, the same on all nodes and no other checkpoint's."""


@dataclass(frozen=True, kw_only=True)
class OtherNode:
    """Another node, as node 0 sees it at a heartbeat."""

    node: int
    host: str
    pulse_seq: int
    report: dict[str, Any] | None
    """`{"kind": "drain"}`, or how its part ended (`worker.attempt.nodes.causes`)."""


@dataclass(frozen=True, kw_only=True)
class NodeReply:
    """Answer to a pulse of another node than node 0."""

    address: str
    """Node 0's."""
    port: int | None
    """Port there; None: node 0 does not listen yet."""
    collects: CheckpointName | None
    """The checkpoint whose files node 0 waits for."""
    has_begun: bool
    """Whether it is known what the attempt goes on from."""
    resume: StoredTree | None
    """The checkpoint that it goes on from; None: from the beginning."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What another node says of the checkpoint that node 0 collects."""

    node: int
    name: CheckpointName
    files: list[StoredFile] | None
    """None: it does not have that checkpoint any more."""


def pulse(claim: ClaimedJob) -> NodeReply:
    """Say that the node lives. Raises Fenced, Unavailable."""

    def work(session: Session) -> NodeReply:
        if not gang_nodes.beat(session, claim.place.member, claim.job_id, claim.token):
            raise _over(claim)
        lead = gang_nodes.list_nodes(session, claim.job_id, claim.token)[0]
        attempt = attempt_rows.find_attempt(session, claim.job_id, claim.attempt)
        resume, has_begun = None, attempt.is_begun
        if attempt.is_begun and attempt.resume_checkpoint_id is not None:
            checkpoint = objects.find_checkpoint(session, claim.job_id, attempt.resume_checkpoint_id)
            has_begun = checkpoint is not None  # else it was found damaged, and node 0 chooses another one
            resume = None if checkpoint is None else checkpoint.tree
        return NodeReply(
            address=lead.address,
            port=lead.port,
            collects=None if lead.part is None else str(lead.part["name"]),
            has_begun=has_begun,
            resume=resume,
        )

    return claim.backend.database.write(work)


def report(claim: ClaimedJob, what: dict[str, Any]) -> None:
    """Let node 0 know how this node's part ended, or that its worker is to end. Raises Fenced, Unavailable."""
    _tell(claim, {"report": what})


def store_part(claim: ClaimedJob, name: CheckpointName, files: Sequence[StoredFile] | None) -> None:
    """Let node 0 know which files of the checkpoint are stored; None: it is gone. Raises Fenced, Unavailable."""
    listed = None
    if files is not None:
        listed = [{"path": file.path, "num_bytes": file.num_bytes, "sha256": file.sha256} for file in files]
    _tell(claim, {"part": {"name": name, "files": listed}})


def listen(claim: ClaimedJob, port: int) -> None:
    """Let the other nodes know where node 0 listens. Raises Fenced, Unavailable."""
    _tell(claim, {"port": port})


def collect(claim: ClaimedJob, name: CheckpointName) -> None:
    """Ask the other nodes to store their files of a checkpoint. Raises Fenced, Unavailable."""
    _tell(claim, {"part": {"name": name}})


def list_parts(claim: ClaimedJob, prefix: str) -> list[Part]:
    """Return what the other nodes have said of checkpoints last, with files as stored under the prefix."""
    rows = claim.backend.database.read(lambda session: gang_nodes.list_nodes(session, claim.job_id, claim.token))
    if len(rows) != claim.place.num_nodes:
        raise _over(claim)
    return [
        Part(
            node=row.node,
            name=str(row.part["name"]),
            files=None
            if row.part["files"] is None
            else [StoredFile(**file, key=prefix + file["path"]) for file in row.part["files"]],
        )
        for row in rows[1:]
        if row.part is not None
    ]


def others_of(session: Session, claim: ClaimedJob) -> tuple[OtherNode, ...]:
    """Return the other nodes of node 0's attempt."""
    rows = gang_nodes.list_nodes(session, claim.job_id, claim.token)
    return tuple(
        OtherNode(node=row.node, host=row.host, pulse_seq=row.pulse_seq, report=row.report) for row in rows if row.node
    )


def lose(claim: ClaimedJob, other: OtherNode) -> None:
    """End the attempt, since a node has stopped responding; the job is queued again. Raises Fenced, Unavailable."""
    _lose(claim, other)
    claim.backend.queue.wake()


@fenced
def _lose(session: Session, job: Job, claim: ClaimedJob, other: OtherNode) -> None:
    message = f"The worker of node {other.node} ({other.host}) stopped responding."
    end = requeue.AttemptEnd(AttemptOutcome.LOST, claim.worker, message=message)
    requeue.give_back(session, claim.backend.settings, job, end)


def forget_over(backend: Backend) -> None:
    """Delete what ended attempts and vanished workers have left. Raises Unavailable."""
    seconds = _FORGOTTEN_LEASES * backend.settings.lease_seconds
    backend.database.write(lambda session: gang_nodes.forget_over(session, seconds))


def _tell(claim: ClaimedJob, values: dict[str, Any]) -> None:
    place = claim.place
    is_told = claim.backend.database.write(
        lambda session: gang_nodes.tell(session, place.member, claim.job_id, claim.token, values)
    )
    if not is_told:
        raise _over(claim)


def _over(claim: ClaimedJob) -> Fenced:
    return Fenced(f"Attempt {claim.attempt} of {claim.job_id} is over.")
