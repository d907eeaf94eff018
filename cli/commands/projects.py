"""Commands `preftune projects …`: run where the service's settings are."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.service_backend import operating
from preftune.cli.console import out
from preftune.cli.extras import from_extra

app = typer.Typer(help="Projects of this deployment, and what each may take.", no_args_is_help=True)
_PROJECTS = "core.services.access.projects"
_NONE = "none"


@app.command()
def create(project: Annotated[str, typer.Argument(help="Its id: a-z, 0-9 and -.")]) -> None:
    """Create a project; only its own keys see what it holds."""
    with operating() as backend:
        from_extra(_PROJECTS, "create")(backend, project)
    out.print(project, markup=False)


@app.command("list")
def list_projects() -> None:
    """List projects with their use and limits."""
    with operating() as backend:
        projects = from_extra(_PROJECTS, "list_projects")(backend)
    table = Table("project", "stored", "queued", "running", "upload", "requests/min", box=None)
    for project in projects:
        limits = project.limits
        table.add_row(
            Text(project.id),
            _of(project.stored_bytes, limits.max_stored_bytes),
            _of(project.num_queued, limits.max_queued_jobs),
            _of(project.num_running, limits.max_running_jobs),
            _shown(limits.max_upload_bytes),
            _shown(limits.max_requests_per_minute),
        )
    out.print(table)


@app.command()
def limit(
    project: str,
    stored_bytes: Annotated[int | None, typer.Option(help="Datasets, policies and checkpoints together.")] = None,
    upload_bytes: Annotated[int | None, typer.Option(help="Size of one file.")] = None,
    queued_jobs: Annotated[int | None, typer.Option(help="Jobs waiting at a time; more are refused.")] = None,
    running_jobs: Annotated[int | None, typer.Option(help="Jobs running at a time; more wait.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Requests with one key.")] = None,
) -> None:
    """Set all limits of a project; one that is left out is unlimited."""
    limits = from_extra(_PROJECTS, "Limits")(
        max_stored_bytes=stored_bytes,
        max_upload_bytes=upload_bytes,
        max_queued_jobs=queued_jobs,
        max_running_jobs=running_jobs,
        max_requests_per_minute=requests_per_minute,
    )
    with operating() as backend:
        from_extra(_PROJECTS, "set_limits")(backend, project, limits)


def _of(taken: int, most: int | None) -> str:
    return f"{taken:,}" if most is None else f"{taken:,} of {most:,}"


def _shown(most: int | None) -> str:
    return _NONE if most is None else f"{most:,}"
