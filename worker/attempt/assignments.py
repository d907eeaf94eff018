"""What a trainer is told, from what its supervisor has fetched."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from core.domain.trainer_protocol import Assignment
from core.services.attempts.claimed_job import ClaimedJob
from worker.attempt.inputs.staging import Inputs
from worker.attempt.workplace import Workplace


def make_assignment(
    place: Workplace,
    claim: ClaimedJob,
    spec: dict[str, Any],
    inputs: Inputs,
    resume_dir: Path | None,
    meeting: tuple[str, int] | None = None,
) -> Assignment:
    """Return the assignment of this node's trainers.

    Args:
        meeting: address and port at which node 0 listens, for the other nodes.
    """
    network = place.network if claim.place.has_others else None
    address, port = meeting or ((network.address, network.port) if network else ("", 0))
    return Assignment(
        job_id=claim.job_id,
        attempt=claim.attempt,
        spec=spec,
        base_model_dir=str(inputs.base_model_dir),
        rows=str(inputs.rows),
        validation_rows=_optional(inputs.validation_rows),
        sft_rows=_optional(inputs.sft_rows),
        resume_from=_optional(resume_dir),
        device=place.device,
        num_devices=place.num_devices,
        num_nodes=claim.place.num_nodes,
        node=claim.place.node,
        run_token=_run_token(claim) if network else "",
        meeting_address=address,
        meeting_port=port,
        own_address=network.address if network else "",
        interface=network.interface if network else "",
        silence_seconds=claim.backend.settings.lease_seconds,
        num_threads=place.launch.num_threads,
        fast_precision=place.precision.found,
        pause_at_share=claim.pause_at_share,
        submitted_at=inputs.submitted_at.isoformat(),
    )


def _run_token(claim: ClaimedJob) -> str:
    """Return a random value that all nodes of the attempt know; trainers are not told the claim's own token."""
    return sha256(f"run {claim.token}".encode()).hexdigest()[:32]


def _optional(path: Path | None) -> str | None:
    return None if path is None else str(path)
