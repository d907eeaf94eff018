"""Policy of a job before its DPO stage: an output of the SFT stage, kept as long as a job that shares it."""

import json

from core.database.repositories import objects
from core.database.tables.jobs import Job
from core.domain.jobs.stored_files import StoredTree
from core.services.backend import Backend
from core.storage.object_store import ObjectNotFound

_SUMMARY_FILE = "evaluation.json"


def find_sft_policy(backend: Backend, job: Job, published: StoredTree) -> StoredTree | None:
    """Return the policy, with LoRA its adapter; None where it is not kept. `published`: what the job published."""
    try:
        digest = str(json.loads(backend.store.get_bytes(published.prefix + _SUMMARY_FILE))["sft_digest"])
    except (ObjectNotFound, ValueError, KeyError, TypeError):
        return None
    output = backend.database.read(lambda session: objects.find_stage_output(session, job.project_id, digest))
    return None if output is None else output.tree
