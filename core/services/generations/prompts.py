"""Prompts of a generation: those listed, of a dataset, or those that a job held out of training."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy.orm import Session

from core.database.repositories import datasets as dataset_rows
from core.database.tables.datasets import Dataset
from core.datasets.editing import as_demonstrations, edit_rows
from core.datasets.splitting import split_validation
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import FieldError, InvalidRequest
from core.domain.jobs.job_spec import JobSpec
from core.domain.jobs.methods import get_method
from core.domain.judging.generations import MAX_PROMPTS, GenerationRequest
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.datasets.contents import row_lines
from core.services.datasets.drawing import MAX_ROWS_READ, distinct, draw_rows, prompt_of
from core.services.datasets.scratch import scratch_folder
from core.services.jobs import jobs
from core.storage import keys


def draw_prompts(
    backend: Backend, project_id: str, request: GenerationRequest
) -> tuple[str | None, list[dict[str, Any]]]:
    """Return the version of the dataset, and rows of `prompt`, `line` and context. Raises InvalidRequest."""
    number = request.num_prompts or MAX_PROMPTS
    if request.prompts is not None:
        listed = [
            prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]
            for prompt in request.prompts
        ]
        return None, [{"prompt": prompt} for prompt in distinct(listed)[:number]]
    if request.dataset_id is not None:
        dataset = _find_dataset(backend, project_id, request.dataset_id, "/dataset_id")
        lines = row_lines(backend.store, keys.dataset_rows(project_id, dataset.id))
        return dataset.version_name, _draw(lines, number, request.seed)
    with scratch_folder(backend.settings, "held-out") as folder:
        dataset, rows = _held_out(backend, project_id, str(request.held_out_of), folder)
        with rows.open("rb") as file:
            return dataset.version_name, _draw(file, number, request.seed)


def _draw(lines: Iterable[bytes], number: int, seed: int) -> list[dict[str, Any]]:
    rows = (orjson.loads(line) for line in islice(lines, MAX_ROWS_READ))
    return [prompt_of(row) for row in draw_rows(rows, number, seed, needs_prompt=True)]


def _held_out(backend: Backend, project_id: str, job_id: str, folder: Path) -> tuple[Dataset, Path]:
    """Return the rows that a job measured and did not train on, as its trainer split them. Raises InvalidRequest."""

    def find(session: Session) -> tuple[JobSpec, bool, Dataset | None]:
        job = jobs.find(session, project_id, job_id)
        row_id = job.validation_dataset_id or job.dataset_id
        is_own = job.validation_dataset_id is None
        return JobSpec.model_validate(job.spec), is_own, dataset_rows.find_dataset(session, project_id, row_id)

    try:
        spec, is_own, dataset = backend.database.read(find)
    except jobs.JobNotFound as error:
        raise _fault(error.detail) from error
    if dataset is None:
        raise _fault(f"the dataset of {job_id} is deleted")
    rows = folder / "rows.jsonl"
    backend.store.get_file(keys.dataset_rows(project_id, dataset.id), rows)
    if not is_own:
        return dataset, rows
    if not spec.validation_fraction:
        raise _fault(f"{job_id} held nothing out of training")
    if spec.exclude_lines or spec.swap_lines:
        edited = folder / "edited.jsonl"
        edit_rows(rows, edited, exclude_lines=spec.exclude_lines, swap_lines=spec.swap_lines)
        rows = edited
    if get_method(spec.method).encoded_kind is DatasetKind.DEMONSTRATION:
        shown = folder / "demonstrations.jsonl"
        as_demonstrations(rows, shown)
        rows = shown
    validation = folder / "validation.jsonl"
    split_validation(rows, spec.validation_fraction, spec.seed, folder / "train.jsonl", validation)
    return dataset, validation


def _find_dataset(backend: Backend, project_id: str, name: str, pointer: str) -> Dataset:
    try:
        return datasets.find_ready(backend, project_id, name)
    except (datasets.DatasetNotFound, datasets.DatasetNotReady) as error:
        raise InvalidRequest(f"{pointer}: {error.detail}", errors=[FieldError(pointer, error.detail)]) from error


def _fault(detail: str) -> InvalidRequest:
    return InvalidRequest(f"/held_out_of: {detail}", errors=[FieldError("/held_out_of", detail)])
