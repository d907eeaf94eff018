"""`/jobs/{id}/artifact`: the published policy, file by file or as one tar stream."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from api.deps import NEEDS_KEY, BackendDep, CallerDep
from api.docs.openapi import binary, problems
from api.downloads import Download, Read, TarMember, file_response, tar_response
from api.http.root_path import public_path
from api.http.strict_route import StrictRoute
from api.routes.jobs import JobId
from api.schemas.artifacts import Artifact, ArtifactFile
from api.threads import Lane, in_lane
from core.domain.jobs.stored_files import StoredFile
from core.services.backend import Backend
from core.services.jobs import artifacts
from core.services.jobs.stored_files import read_file, require_present

PRESIGNED_SECONDS = 300
"""For beginning a download; one that has begun goes on."""

router = APIRouter(tags=["artifact"], route_class=StrictRoute, dependencies=NEEDS_KEY, responses=problems(404, 503))


@router.get("/jobs/{job_id}/artifact")
def get_artifact(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Artifact:
    """List the files of the tuned policy, with sizes and digests."""
    view = artifacts.get(backend, caller.project_id, job_id)
    files = [
        ArtifactFile(path=file.path, num_bytes=file.num_bytes, sha256=file.sha256, url=file_url(job_id, file.path))
        for file in view.files
    ]
    return Artifact(
        job_id=job_id,
        files=files,
        archive_url=public_path(f"/jobs/{job_id}/artifact/archive"),
        manifest_sha256=view.manifest_sha256,
        created_at=view.created_at,
    )


@router.get(
    "/jobs/{job_id}/artifact/archive",
    response_class=Response,
    responses=binary("One folder, named as the job.", "application/x-tar"),
)
@in_lane(Lane.STORE)
def get_artifact_archive(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Response:
    """Download the published folder as a tar stream; exports are downloaded separately."""
    view = artifacts.get(backend, caller.project_id, job_id)
    return tar_response(job_id, members_of(backend, job_id, view.published), view.created_at)


@router.get(
    "/jobs/{job_id}/artifact/files/{path:path}",
    response_class=Response,
    responses={
        **binary("The bytes. `ETag` is their SHA-256.", "application/octet-stream"),
        206: binary("The range asked for.", "application/octet-stream")[200],
        **problems(416),
    },
)
@in_lane(Lane.STORE)
def get_artifact_file(
    job_id: JobId,
    path: Annotated[str, Path(description="`path` of a file of the artifact.", max_length=1024)],
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    redirect: Annotated[
        bool,
        Query(description="Answer 307 with a presigned address in the store, for five minutes, where the store is S3."),
    ] = False,
) -> Response:
    """Download one file; `Range` is supported, so that an interrupted download can continue.

    What comes from a presigned address is not checked on its way: compare it with `sha256`.
    """
    file = artifacts.find_file(backend, caller.project_id, job_id, path)
    filename = PurePosixPath(file.path).name
    if redirect:  # the store would answer 404 by itself, and nobody here would hear of it
        require_present(backend, job_id, file)
    if redirect and (url := backend.store.download_url(file.key, filename=filename, seconds=PRESIGNED_SECONDS)):
        return RedirectResponse(url, 307, {"Cache-Control": "no-store"})
    download = Download(
        num_bytes=file.num_bytes,
        sha256=file.sha256,
        filename=filename,
        read=_reader(backend, job_id, file),
    )
    return file_response(request, download)


def members_of(backend: Backend, job_id: str, files: Sequence[StoredFile]) -> list[TarMember]:
    return [TarMember(path=file.path, num_bytes=file.num_bytes, read=_reader(backend, job_id, file)) for file in files]


def _reader(backend: Backend, job_id: str, file: StoredFile) -> Read:
    """Return a reader of one file; a complete read is verified."""
    return lambda start, end: read_file(backend, job_id, file, start, end)


def file_url(job_id: str, path: str) -> str:
    return public_path(f"/jobs/{job_id}/artifact/files/{quote(path)}")
