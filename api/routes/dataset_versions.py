"""Versions of datasets: made of the rows of another version; merging, splitting, differences."""

from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.access.callers import Caller
from api.deps import (
    DEFAULT_LIMIT,
    NEEDS_KEY,
    BackendDep,
    CallerDep,
    Cursor,
    IdempotencyKey,
    Limit,
    UploadDeskDep,
    get_processor,
)
from api.docs.openapi import problems
from api.http.idempotent import Created, CreatingRequest, answer_once, creating
from api.http.strict_route import StrictRoute
from api.routes.datasets import DatasetId, Prefer, answer_with_dataset, wants_later
from api.schemas.base import Page
from api.schemas.dataset_versions import DatasetDiff, NewMerge, NewSplit, NewVersion
from api.schemas.datasets import Dataset
from api.threads import Lane, in_lane
from core.services.backend import Backend
from core.services.datasets.versions import diff, versions
from core.services.datasets.versions.recipes import Edits
from core.services.datasets.versions.versions import Change, Merge, Split, Taking
from core.services.views import DatasetView

CREATING_PROBLEMS = problems(400, 404, 409, 413, 415, 422, 503, 507)
Against = Annotated[str, Query(min_length=1, max_length=64, description="The older one: `ds_…` or `ds_…@<version>`.")]

router = APIRouter(tags=["datasets"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.post(
    "/datasets/{dataset_id}/versions",
    status_code=201,
    response_model=Dataset,
    response_description="Checked and stored. `Location` names it.",
    responses={202: {"model": Dataset, "description": "Stored, and being checked: poll it."}, **CREATING_PROBLEMS},
)
async def create_version(
    dataset_id: DatasetId,
    body: NewVersion,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    desk: UploadDeskDep,
    *,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Make the next version of a dataset from the rows of another: some dropped or swapped, others added."""
    asked = _creating(request, backend, caller, key)
    work = partial(_create_version, backend, asked, dataset_id, body, wants_later(prefer))
    response = await to_thread.run_sync(work, limiter=desk.check_limiter)
    (await get_processor(request)).notify()
    return response


@router.get("/datasets/{dataset_id}/versions", responses=problems(404, 422, 503))
def list_versions(
    dataset_id: DatasetId, backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Dataset]:
    """List the versions of a dataset, newest first."""
    page = versions.list_versions(backend, caller.project_id, dataset_id, limit=limit, cursor=cursor)
    return Page[Dataset].model_validate(page)


@router.get("/datasets/{dataset_id}/diff", responses=problems(404, 409, 422, 503), response_model_exclude_unset=True)
@in_lane(Lane.DIFFS)
def get_diff(
    dataset_id: DatasetId,
    backend: BackendDep,
    caller: CallerDep,
    against: Against,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> DatasetDiff:
    """Compare a version with an older one, row by row."""
    found = diff.diff(backend, caller.project_id, dataset_id, against, limit=limit, cursor=cursor)
    return DatasetDiff.model_validate(found)


@router.post(
    "/datasets/merge",
    status_code=201,
    response_model=Dataset,
    response_description="Checked and stored. `Location` names it.",
    responses={202: {"model": Dataset, "description": "Stored, and being checked: poll it."}, **CREATING_PROBLEMS},
)
async def merge_datasets(
    body: NewMerge,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    desk: UploadDeskDep,
    *,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Make a new dataset of the rows of others."""
    asked = _creating(request, backend, caller, key)
    work = partial(_merge, backend, asked, body, wants_later(prefer))
    response = await to_thread.run_sync(work, limiter=desk.check_limiter)
    (await get_processor(request)).notify()
    return response


@router.post(
    "/datasets/{dataset_id}/split",
    status_code=201,
    response_model=Page[Dataset],
    response_description="One dataset for each part, in their order.",
    responses={
        202: {"model": Page[Dataset], "description": "Stored, and being checked: poll them."},
        **CREATING_PROBLEMS,
    },
)
async def split_dataset(
    dataset_id: DatasetId,
    body: NewSplit,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    desk: UploadDeskDep,
    *,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Split the rows of a dataset into new ones, with no prompt in two of them."""
    asked = _creating(request, backend, caller, key)
    work = partial(_split, backend, asked, dataset_id, body, wants_later(prefer))
    response = await to_thread.run_sync(work, limiter=desk.check_limiter)
    (await get_processor(request)).notify()
    return response


def _creating(request: Request, backend: Backend, caller: Caller, key: str | None) -> CreatingRequest:
    return creating(request, caller.project_id, key).with_lease(backend.settings.check_timeout_seconds)


def _create_version(
    backend: Backend, asked: CreatingRequest, dataset_id: str, body: NewVersion, later: bool
) -> Response:
    edits = Edits(
        drop_lines=body.drop_lines,
        swap_lines=body.swap_lines,
        rows=body.rows,
        drops_duplicates=body.drop_duplicates,
    )
    change = Change(base_version=body.base_version, append=body.append, edits=edits)

    def make(chosen: str | None) -> DatasetView:
        taking = Taking(dataset_id=chosen, is_later=later)
        return versions.create(backend, asked.project_id, dataset_id, change, taking)

    return answer_with_dataset(backend, asked, make, is_later=later, cause="/rows" if body.rows else "")


def _merge(backend: Backend, asked: CreatingRequest, body: NewMerge, later: bool) -> Response:
    wanted = Merge(names=body.dataset_ids, title=body.name, drops_duplicates=body.drop_duplicates)

    def make(chosen: str | None) -> DatasetView:
        return versions.merge(backend, asked.project_id, wanted, Taking(dataset_id=chosen, is_later=later))

    return answer_with_dataset(backend, asked, make, is_later=later, cause="/dataset_ids")


def _split(backend: Backend, asked: CreatingRequest, dataset_id: str, body: NewSplit, later: bool) -> Response:
    wanted = Split(fractions=body.fractions, seed=body.seed)

    def create(chosen: str | None) -> Created:
        taking = Taking(dataset_id=chosen, is_later=later)
        views = versions.split(backend, asked.project_id, dataset_id, wanted, taking)
        headers = {"Preference-Applied": "respond-async"} if later else {}
        page = Page[Dataset].model_validate({"data": views, "next_cursor": None}, from_attributes=True)
        return Created(body=page, status=202 if later else 201, headers=headers)

    return answer_once(backend, asked, "ds", create)
