"""Commands `preftune projects …`: run where the service's settings are."""

from dataclasses import asdict
from typing import Annotated, Final

import typer

from cli.options import DataDir
from cli.service_backend import operating
from preftune.cli.console import out
from preftune.cli.extras import from_extra
from preftune.cli.listing import Column, named, print_list
from preftune.cli.options import AsJson, Limit, Quiet

app = typer.Typer(
    help="Create and list projects of this deployment, and limit what each may use.", no_args_is_help=True
)
_PROJECTS = "core.services.access.projects"
_NONE = "none"


@app.command()
def create(
    project: Annotated[str, typer.Argument(help="The project's id: a-z, 0-9 and -.")], data_dir: DataDir = None
) -> None:
    """Create a project. Its contents are visible only to its own keys."""
    with operating(data_dir) as backend:
        from_extra(_PROJECTS, "create")(backend, project)
    out.print(project, markup=False)


_COLUMNS: Final = (
    named("id", "project", is_whole=True),
    Column(
        title="bytes stored", value=lambda item: _of(item["stored_bytes"], item["max_stored_bytes"]), is_number=True
    ),
    Column(title="queued", value=lambda item: _of(item["num_queued"], item["max_queued_jobs"]), is_number=True),
    Column(title="running", value=lambda item: _of(item["num_running"], item["max_running_jobs"]), is_number=True),
    Column(title="largest upload", value=lambda item: _shown(item["max_upload_bytes"]), is_number=True),
    Column(title="requests a minute", value=lambda item: _shown(item["max_requests_per_minute"]), is_number=True),
)


@app.command("list")
def list_projects(as_json: AsJson = False, quiet: Quiet = False, limit: Limit = 100, data_dir: DataDir = None) -> None:
    """List projects with what each uses and may use."""
    with operating(data_dir) as backend:
        projects = from_extra(_PROJECTS, "list_projects")(backend)
    items = [
        {
            "id": project.id,
            "stored_bytes": project.stored_bytes,
            "num_queued": project.num_queued,
            "num_running": project.num_running,
            **asdict(project.limits),
        }
        for project in projects[:limit]
    ]
    print_list(items, _COLUMNS, as_json=as_json, quiet=quiet, has_more=len(projects) > limit)


@app.command()
def limit(
    project: Annotated[str, typer.Argument(help="The project's id.")],
    *,
    stored_bytes: Annotated[
        int | None, typer.Option(help="Bytes of datasets, policies and checkpoints together.")
    ] = None,
    upload_bytes: Annotated[int | None, typer.Option(help="Bytes of one uploaded file.")] = None,
    queued_jobs: Annotated[int | None, typer.Option(help="Jobs that wait; more are refused.")] = None,
    running_jobs: Annotated[int | None, typer.Option(help="Jobs that run at once; more wait.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Requests a minute with one key.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Set a project's limits. Limits you omit are removed."""
    limits = from_extra(_PROJECTS, "Limits")(
        max_stored_bytes=stored_bytes,
        max_upload_bytes=upload_bytes,
        max_queued_jobs=queued_jobs,
        max_running_jobs=running_jobs,
        max_requests_per_minute=requests_per_minute,
    )
    with operating(data_dir) as backend:
        from_extra(_PROJECTS, "set_limits")(backend, project, limits)


def _of(taken: int, most: int | None) -> str:
    return f"{taken:,}" if most is None else f"{taken:,} of {most:,}"


def _shown(most: int | None) -> str:
    return _NONE if most is None else f"{most:,}"
