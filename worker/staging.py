"""Brings what a trainer reads to local disk: base model and rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from core.base_models.directory import get_base_model
from core.database.repositories import datasets as dataset_rows
from core.domain.errors import InvalidRequest, NotFound
from core.domain.failure_codes import FailureCode
from core.services import base_models
from core.services.attempts import Claim
from core.services.backend import Backend
from core.storage import keys
from core.storage.object_store import ObjectNotFound
from core.storage.trees import TreeDamaged
from worker.fetching import Fetcher, outage_seconds
from worker.patience import patiently

Result = TypeVar("Result")

_CHUNK_BYTES = 1024 * 1024


class StagingFailed(Exception):
    """The job cannot be staged, here or anywhere. `detail` is for the user."""

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class NotOnThisWorker(Exception):
    """Another worker may have what this one lacks. The text is for the user."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    base_model_dir: Path
    rows: Path
    validation_rows: Path | None
    sft_rows: Path | None


def stage_inputs(fetcher: Fetcher) -> Inputs:
    """Raises StagingFailed, NotOnThisWorker, Unavailable, and what the fetcher's check raises."""
    spec = fetcher.claim.spec
    sft_dataset_id = None if spec["sft"] == "skip" else spec["sft"].get("dataset_id")
    return Inputs(
        base_model_dir=_base_model(fetcher, spec["base_model"]),
        rows=_rows(fetcher, spec["dataset_id"], "rows.jsonl"),
        validation_rows=_optional_rows(fetcher, spec.get("validation_dataset_id"), "validation.jsonl"),
        sft_rows=_optional_rows(fetcher, sft_dataset_id, "sft.jsonl"),
    )


def _base_model(fetcher: Fetcher, name: str) -> Path:
    backend, claim = fetcher.backend, fetcher.claim
    try:
        if not base_models.is_job_reference(name):
            return get_base_model(backend.settings.models_dir, name).directory.resolve()
        start = _patiently(
            fetcher, lambda: backend.database.write(lambda s: base_models.find_policy(s, claim.project_id, name))
        )
        assert start.tree is not None
        return fetcher.fetch_policy(start.tree)
    except NotFound as error:
        raise NotOnThisWorker(error.detail) from None
    except InvalidRequest as error:
        raise StagingFailed(FailureCode.BAD_BASE_MODEL, error.detail) from None
    except TreeDamaged as damage:
        raise StagingFailed(FailureCode.BAD_BASE_MODEL, f"The stored policy of {name} is damaged: {damage}") from None


def _optional_rows(fetcher: Fetcher, dataset_id: str | None, name: str) -> Path | None:
    return None if dataset_id is None else _rows(fetcher, dataset_id, name)


def _rows(fetcher: Fetcher, dataset_id: str, name: str) -> Path:
    target = fetcher.work_dir / name
    key = keys.dataset_rows(fetcher.claim.project_id, dataset_id)
    expected = _patiently(fetcher, lambda: _num_rows(fetcher.backend, fetcher.claim, dataset_id))
    fetcher.check()
    try:
        _patiently(fetcher, lambda: fetcher.backend.store.get_file(key, target))
    except ObjectNotFound:
        raise StagingFailed(FailureCode.BAD_DATA, f"The rows of {dataset_id} are missing in the store.") from None
    found = _count_lines(target)
    if found != expected:
        detail = f"The stored rows of {dataset_id} are damaged: {found} instead of {expected}. Upload the file again."
        raise StagingFailed(FailureCode.BAD_DATA, detail)
    return target


def _num_rows(backend: Backend, claim: Claim, dataset_id: str) -> int:
    dataset = backend.database.read(lambda session: dataset_rows.find_dataset(session, claim.project_id, dataset_id))
    if dataset is None:
        raise StagingFailed(FailureCode.BAD_DATA, f"There is no data set {dataset_id}.")
    return dataset.num_accepted


def _count_lines(path: Path) -> int:
    with path.open("rb") as content:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: content.read(_CHUNK_BYTES), b""))


def _patiently(fetcher: Fetcher, work: Callable[[], Result]) -> Result:
    return patiently(work, between_tries=fetcher.check, max_seconds=outage_seconds(fetcher.backend))
