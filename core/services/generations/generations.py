"""Generations as users handle them: create, get, list, cancel, delete; a lane of a worker does them part by part."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy.orm import Session

from core.database.repositories import generations as rows
from core.database.repositories import owned
from core.database.repositories.requests import WAITING
from core.database.tables.generations import Generation
from core.domain.errors import Conflict, FieldError, InvalidRequest, NotFound, present
from core.domain.judging.generations import MAX_ANSWERS, MAX_TOKENS, PART_ANSWERS, GenerationRequest, WorkStatus
from core.domain.request_status import RequestStatus
from core.services.access import audit, quotas
from core.services.backend import Backend
from core.services.chat import served_models
from core.services.generations.prompts import draw_prompts
from core.services.ids import derived_id, make_id, new_id
from core.services.pages import page_of, read_cursor
from core.services.requests import requests
from core.services.transactions import deletes, reads, writes
from core.services.views import Page, from_row

MAX_WAITING = 20
"""Generations of a project that have not ended."""
MAX_PROMPT_BYTES = 64 * 1024**2
"""Prompts of one generation: they are in the database."""


class GenerationNotFound(NotFound):
    code = "generation-not-found"
    title = "There is no such generation"


class TooManyGenerations(Conflict):
    code = "too-many-generations"
    title = "The project has as many generations under way as it may"


class GenerationNotCancellable(Conflict):
    code = "generation-not-cancellable"
    title = "The generation has ended"


class GenerationNotDeletable(Conflict):
    code = "generation-not-deletable"
    title = "The generation cannot be deleted"


@dataclass(frozen=True, kw_only=True)
class GenerationView:
    id: str
    name: str | None
    status: WorkStatus
    source: str | None
    num_prompts: int
    num_answers: int
    num_done: int
    num_failed: int
    num_tokens: int
    failures: list[dict[str, Any]]
    error: str | None
    dataset_id: str | None
    is_held: bool
    requested: dict[str, Any]
    metadata: dict[str, str]
    created_at: datetime
    finished_at: datetime | None


def create(
    backend: Backend,
    project_id: str,
    request: GenerationRequest,
    *,
    generation_id: str | None = None,
    first: Callable[[Session], None] | None = None,
) -> GenerationView:
    """Queue a generation with the prompts that it is about.

    Raises InvalidRequest naming the fault, TooManyGenerations, StorageQuotaExceeded. With a `generation_id` chosen
    before (see `idempotency`), a repeated call answers the generation that is there. `first` runs at the start of the
    transaction; if it raises, nothing is queued.
    """
    chosen = generation_id or new_id("gen")
    if generation_id is not None and backend.database.read(
        lambda session: owned.find(session, Generation, project_id, chosen)
    ):
        return get(backend, project_id, chosen)
    served_models.require_all(backend, project_id, request.models)
    source, prompts = draw_prompts(backend, project_id, request)
    num_answers = _require_size(request, prompts)
    text = orjson.dumps(prompts).decode()

    def work(session: Session) -> GenerationView:
        if first is not None:
            first(session)
        known = owned.find(session, Generation, project_id, chosen)
        if known is not None:
            return view(known)
        quotas.require_room(session, project_id, len(text.encode()))
        row = _new_row(project_id, chosen, request, text)
        row.source_name, row.num_prompts, row.num_answers = source, len(prompts), num_answers
        requests.submit(session, row, max_waiting=MAX_WAITING, what="generations", too_many=TooManyGenerations)
        audit.note(session, project_id, "generation.create", chosen, num_answers=num_answers)
        return view(row)

    return backend.database.write(work)


def _new_row(project_id: str, generation_id: str, request: GenerationRequest, prompts: str) -> Generation:
    return Generation(
        id=generation_id,
        project_id=project_id,
        name=request.name,
        user_metadata=request.metadata,
        requested=request.model_dump(mode="json", exclude={"prompts", "metadata", "name"}),
        prompts=prompts,
        part_answers=PART_ANSWERS,
        num_done=0,
        num_failed=0,
        num_tokens=0,
        num_bytes=len(prompts.encode()),
        failures={"first": []},
        dataset_id=make_id("ds", derived_id(generation_id, 1).partition("_")[2]),
        is_cancelled=False,
        is_held=False,
    )


def _require_size(request: GenerationRequest, prompts: list[dict[str, Any]]) -> int:
    """Return the number of answers. Raises InvalidRequest where there is none, or more than a generation may have."""
    if not prompts:
        pointer = "/dataset_id" if request.dataset_id else "/held_out_of" if request.held_out_of else "/prompts"
        raise _invalid(pointer, "holds no prompt that could be answered")
    per_prompt = len(request.models) * request.num_samples
    num_answers = per_prompt * len(prompts)
    most = min(MAX_ANSWERS, MAX_TOKENS // request.sampling.max_tokens)
    if num_answers > most:
        raise _invalid(
            "/num_prompts",
            f"{len(request.models)} models × {len(prompts):,} prompts × {request.num_samples} samples are "
            f"{num_answers:,} answers, and with max_tokens {request.sampling.max_tokens:,} a generation may have "
            f"{most:,}: take num_prompts {most // per_prompt:,} at most, or fewer samples or tokens",
        )
    num_bytes = sum(len(orjson.dumps(prompt)) for prompt in prompts)
    if num_bytes > MAX_PROMPT_BYTES:
        raise _invalid(
            "/num_prompts",
            f"the {len(prompts):,} prompts have {num_bytes:,} bytes, and may have {MAX_PROMPT_BYTES:,}; take fewer",
        )
    return num_answers


@reads
def get(session: Session, project_id: str, generation_id: str) -> GenerationView:
    return view(find(session, project_id, generation_id))


@reads
def list_page(
    session: Session,
    project_id: str,
    *,
    limit: int = 20,
    cursor: str | None = None,
    dataset_id: str | None = None,
    job_id: str | None = None,
) -> Page[GenerationView]:
    """Return a page of generations, newest first: with prompts of a dataset, by the policies of a job."""
    before = read_cursor(cursor)
    found = rows.list_generations(
        session, project_id, before=before, limit=limit + 1, dataset_id=dataset_id, job_id=job_id
    )
    return page_of(found, limit, [view(row) for row in found[:limit]])


@writes
def cancel(session: Session, project_id: str, generation_id: str) -> tuple[GenerationView, bool]:
    """Cancel a generation, and tell whether that changes it; its worker stops within seconds.

    Raises GenerationNotFound, GenerationNotCancellable.
    """
    row = lock(session, project_id, generation_id)
    if row.is_cancelled:
        return view(row), False
    if row.status not in WAITING:
        raise GenerationNotCancellable(f"The generation has {row.status.value} already.")
    requests.settle(row, RequestStatus.FAILED)
    row.is_cancelled, row.is_held = True, False
    rows.delete_parts(session, row.id)
    session.flush()
    audit.note(session, project_id, "generation.cancel", generation_id)
    return view(row), True


@writes
def hold(session: Session, project_id: str, generation_id: str, *, is_held: bool) -> None:
    """Hold a generation that has not ended, after the part under way, or let it go on. Raises GenerationNotFound."""
    row = lock(session, project_id, generation_id)
    row.is_held = is_held and row.status in WAITING


@deletes
def delete(session: Session, project_id: str, generation_id: str) -> None:
    """Delete the record of a generation that has ended; its dataset stays.

    Raises GenerationNotFound, GenerationNotDeletable.
    """
    row = lock(session, project_id, generation_id)
    if row.status in WAITING:
        raise GenerationNotDeletable(f"The generation is {row.status.value}; cancel it first.")
    rows.delete_generation(session, generation_id)
    audit.note(session, project_id, "generation.delete", generation_id)


def find(session: Session, project_id: str, generation_id: str) -> Generation:
    """Return the row; raises GenerationNotFound."""
    row = owned.find(session, Generation, project_id, generation_id)
    return present(row, GenerationNotFound, f"There is no generation {generation_id}.")


def lock(session: Session, project_id: str, generation_id: str) -> Generation:
    """Return the row, locked until the transaction ends; raises GenerationNotFound."""
    row = owned.lock(session, Generation, generation_id, project_id)
    return present(row, GenerationNotFound, f"There is no generation {generation_id}.")


def view(row: Generation) -> GenerationView:
    return from_row(
        GenerationView,
        row,
        status=WorkStatus.CANCELLED if row.is_cancelled else WorkStatus(row.status.value),
        source=row.source_name,
        failures=row.failures["first"],
        error=row.error_detail,
        dataset_id=row.dataset_id if row.status is RequestStatus.SUCCEEDED else None,
        is_held=row.is_held and row.status in WAITING,
        metadata=row.user_metadata,
    )


def _invalid(pointer: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer}: {fault}.", errors=[FieldError(pointer, fault)])
