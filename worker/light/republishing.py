"""Republications, done by the light lane: base model and artifact fetched, merged again, verified, and stored."""

import json
from pathlib import Path
from typing import Any

from core.services.requests import republications
from core.services.requests.republications import NothingToRepublish, RepublicationClaim
from core.storage.trees import check_stored, upload_tree
from worker.artifact.publishing import complete_records
from worker.light.exports import refusals
from worker.light.lane import RequestContext, RequestKind, RequestRefused
from worker.light.scores import find_base_model
from worker.processes.start import command_of

COMMAND = command_of("republication")


def republish(claim: RepublicationClaim, context: RequestContext) -> None:
    """Merge, verify and store. Raises RequestRefused, LaneStopping, Unavailable."""
    base_model_dir = find_base_model(context, claim.base_model_name, claim.base_policy)
    task = {
        "spec": claim.spec,
        "base_model_dir": str(base_model_dir),
        "artifact_dir": str(context.fetch(claim.policy, "old")),
        "rows": claim.rows,
        "num_threads": context.num_threads,
        "submitted_at": claim.submitted_at.isoformat(),
    }
    (context.work_dir / "republish.json").write_text(json.dumps(task), encoding="utf-8")
    with refusals(context.work_dir):
        context.run(COMMAND, "Merging the adapter again", reads=[base_model_dir])
    facts: dict[str, Any] = json.loads((context.work_dir / "verification.json").read_text(encoding="utf-8"))
    directory = context.work_dir / "policy"
    _update_records(directory, facts)
    uploaded = upload_tree(context.backend.store, claim.prefix, directory, between_files=context.check)
    check_stored(context.backend.store, uploaded, between_files=context.check)
    try:
        republications.finish(context.backend, claim, uploaded, facts["verification"])
    except NothingToRepublish as error:
        raise RequestRefused(error.detail) from None


REPUBLICATIONS = RequestKind(republications.claim, republish)


def _update_records(directory: Path, facts: dict[str, Any]) -> None:
    """Make card and report say what is published now."""
    path = directory / "job.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["summary"] = (record.get("summary") or {}) | facts
    complete_records(directory, record)
