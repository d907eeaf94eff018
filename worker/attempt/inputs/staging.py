"""Download of a trainer's inputs to local disk: base model and rows."""

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core.base_models.directory import get_base_model
from core.domain.errors import InvalidRequest, NotFound
from core.domain.jobs.failure_codes import FailureCode
from core.services.attempts.inputs import JobInputs, find_inputs
from core.services.base_models.sharing import SharedModel, fetch_shared, find_shared, is_sharing
from core.storage.trees import TreeDamaged
from worker.attempt.failures import StagingFailed
from worker.attempt.inputs.fetcher import Fetcher
from worker.attempt.inputs.rows import fetch_rows

_CHUNK_BYTES = 1024 * 1024
_LOOK_SECONDS = 1.0


class NotOnThisWorker(Exception):
    """Raised where another worker may have what this one lacks. The text is for the user."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    base_model_dir: Path
    rows: Path
    validation_rows: Path | None
    sft_rows: Path | None
    submitted_at: datetime


def stage_inputs(fetcher: Fetcher) -> Inputs:
    """Stage the inputs. Raises StagingFailed, NotOnThisWorker, Unavailable, and what the fetcher's check raises."""
    try:
        found = fetcher.patiently(lambda: find_inputs(fetcher.backend, fetcher.claim))
    except InvalidRequest as error:
        raise StagingFailed(FailureCode.BAD_BASE_MODEL, error.detail) from None
    rows = fetch_rows(fetcher, found.rows, "rows.jsonl")
    expected = fetcher.claim.spec["num_pairs"]
    if (num_rows := _count_lines(rows)) != expected:
        detail = f"The stored rows are damaged: {num_rows} instead of {expected}. Upload the dataset again."
        raise StagingFailed(FailureCode.BAD_DATA, detail)
    return Inputs(
        base_model_dir=_base_model(fetcher, found),
        rows=rows,
        validation_rows=fetch_rows(fetcher, found.validation_rows, "validation.jsonl")
        if found.validation_rows
        else None,
        sft_rows=fetch_rows(fetcher, found.sft_rows, "sft.jsonl") if found.sft_rows else None,
        submitted_at=found.submitted_at,
    )


def _base_model(fetcher: Fetcher, found: JobInputs) -> Path:
    try:
        if found.policy is not None:
            return fetcher.fetch_policy(found.policy)
        assert found.base_model_name is not None
        return _folder(fetcher, found.base_model_name)
    except InvalidRequest as error:
        raise StagingFailed(FailureCode.BAD_BASE_MODEL, error.detail) from None
    except TreeDamaged as damage:
        raise StagingFailed(FailureCode.BAD_BASE_MODEL, f"What the job starts from is damaged: {damage}") from None


def _folder(fetcher: Fetcher, name: str) -> Path:
    """Return the model in this machine's models directory, or else the API's copy from the store."""
    try:
        return get_base_model(fetcher.backend.settings.models_dir, name).directory.resolve()
    except NotFound as error:
        shared = _wait_for_copy(fetcher, name)
        if shared is None:
            raise NotOnThisWorker(error.detail) from None
        return fetcher.patiently(lambda: fetch_shared(fetcher.backend, shared, check=fetcher.check))


def _wait_for_copy(fetcher: Fetcher, name: str) -> SharedModel | None:
    """Wait for a lease's time, if copies are made at all: a new model may be being copied."""
    settings = fetcher.backend.settings
    deadline = time.monotonic() + settings.lease_seconds
    while True:
        shared = fetcher.patiently(lambda: find_shared(fetcher.backend.store, name))
        if shared is not None or not is_sharing(settings) or time.monotonic() > deadline:
            return shared
        fetcher.check()
        time.sleep(_LOOK_SECONDS)


def _count_lines(path: Path) -> int:
    with path.open("rb") as content:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: content.read(_CHUNK_BYTES), b""))
