"""Type of published weights, and whether a merge of an earlier version rounded a part of the adapter's update away."""

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import jobs as job_rows
from core.database.repositories import objects
from core.database.repositories.events import SWEEPER, EventDraft, append_event
from core.domain.jobs.event_kinds import MERGED_IN_BF16
from core.services.backend import Backend
from core.storage.object_store import ObjectNotFound

MAX_ARTIFACTS = 20
"""Read in one pass."""
UNKNOWN = "unknown"
_MAX_HEADER_BYTES = 100_000_000
_TYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
_MESSAGE = (
    "An earlier version merged the adapter in bf16, which rounds small updates away: the published weights are not "
    "quite what was trained. POST /jobs/{job_id}/republish (preftune jobs republish {job_id}) merges them again in "
    "float32."
)


@dataclass(frozen=True, kw_only=True)
class _Unread:
    job_id: str
    key: str | None
    """Key of a file with weights."""


def is_merged_in_bf16(spec: dict[str, Any], weights_dtype: str | None) -> bool:
    """Whether LoRA's update was rounded to bf16 without the job having asked for that type."""
    is_asked_for = spec.get("artifact_dtype", "auto") == "bfloat16"
    return bool(spec.get("lora")) and weights_dtype == "bfloat16" and not is_asked_for


def read_types(backend: Backend) -> int:
    """Record the type of weights of artifacts that name none, with an event for each lossy merge; return how many.

    Raises Unavailable.
    """
    found = backend.database.read(_find)
    for artifact in found:
        dtype = UNKNOWN if artifact.key is None else _read_type(backend, artifact.key)
        backend.database.write(partial(_record, job_id=artifact.job_id, dtype=dtype))
    return len(found)


def _find(session: Session) -> list[_Unread]:
    rows = objects.list_unread_artifacts(session, MAX_ARTIFACTS)
    return [_Unread(job_id=row.job_id, key=objects.find_weights_key(session, row.job_id)) for row in rows]


def _record(session: Session, *, job_id: str, dtype: str) -> None:
    job = job_rows.lock_job(session, job_id)
    artifact = objects.find_artifact(session, job_id)
    if job is None or artifact is None or artifact.weights_dtype is not None:
        return
    artifact.weights_dtype = dtype
    if is_merged_in_bf16(job.spec, dtype):
        message = _MESSAGE.format(job_id=job_id)
        event = EventDraft(kind=MERGED_IN_BF16, level="warning", message=message, actor=SWEEPER, token=MERGED_IN_BF16)
        append_event(session, job, event)


def _read_type(backend: Backend, key: str) -> str:
    """Read the type of the first tensor from the file's header."""
    try:
        length = int.from_bytes(_read(backend, key, 0, 8), "little")
        if length > _MAX_HEADER_BYTES:
            return UNKNOWN
        header = json.loads(_read(backend, key, 8, 8 + length))
        types = {str(tensor["dtype"]) for name, tensor in header.items() if name != "__metadata__"}
    except (ObjectNotFound, ValueError, TypeError, KeyError, AttributeError):
        return UNKNOWN
    known = [_TYPES[name] for name in ("BF16", "F16", "F32", "F64") if name in types]
    return known[0] if known else UNKNOWN


def _read(backend: Backend, key: str, start: int, end: int) -> bytes:
    return b"".join(backend.store.read(key, start, end))
