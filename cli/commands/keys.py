"""Commands `preftune keys …`: run where the service's settings are, such as in a container of its API."""

from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from cli.service_backend import operating
from preftune.cli.console import err, fail, out
from preftune.cli.extras import from_extra

app = typer.Typer(help="API keys of this deployment.", no_args_is_help=True)
SECONDS_OF_DAY = 24 * 3600.0
_KEYS = "core.services.access.api_keys"

Project = Annotated[str, typer.Option(help="Project that the key gives access to.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name to recognise it by: who or what will hold the key.")],
    scope: Annotated[str, typer.Option(help="read, write, admin, operator; each includes those before.")] = "write",
    project: Project = "default",
    days: Annotated[float | None, typer.Option(help="How long the key works; default: until it is revoked.")] = None,
) -> None:
    """Create a key and print it, this once only."""
    scopes = [member.value for member in from_extra("core.domain.access", "Scope")]
    if scope not in scopes:
        fail(f"--scope: must be {', '.join(scopes)}")
    lifetime_seconds = None if days is None else days * SECONDS_OF_DAY
    with operating() as backend:
        chosen = from_extra("core.domain.access", "Scope")(scope)
        made = from_extra(_KEYS, "create")(backend, project, name, chosen, lifetime_seconds=lifetime_seconds)
    _show(made)


@app.command("list")
def list_keys(project: Annotated[str | None, typer.Option(help="Only keys of this project.")] = None) -> None:
    """List all keys, without their secrets."""
    with operating() as backend:
        keys = from_extra(_KEYS, "list_keys")(backend, project)
    table = Table(
        Column("id", no_wrap=True, overflow="fold"),
        "name",
        "project",
        "scope",
        "state",
        "created",
        "last used",
        box=None,
    )
    for key in keys:
        cells = (key.id, key.name, key.project_id, key.scope.value, _state(key), key.created_at, key.last_used_at)
        table.add_row(*(Text(_cell(cell)) for cell in cells))
    out.print(table)


@app.command()
def rotate(
    key_id: str,
    grace_hours: Annotated[float, typer.Option(min=0, help="How long the old key works on.")] = 24,
) -> None:
    """Create a new key to replace an old one, and print it."""
    with operating() as backend:
        made = from_extra(_KEYS, "rotate")(backend, key_id, grace_seconds=grace_hours * 3600)
    _show(made)
    err.print(f"{key_id} works for {grace_hours:g} more hours", markup=False)


@app.command()
def revoke(key_id: str) -> None:
    """Revoke a key; it stops working within two seconds."""
    with operating() as backend:
        from_extra(_KEYS, "revoke")(backend, key_id)
    out.print(f"{key_id} is revoked", markup=False)


def _show(made: Any) -> None:
    key = made.key
    err.print(
        f"{key.id}: {key.scope.value}, project {key.project_id}. Keep the key; it is not shown again:", markup=False
    )
    out.print(made.token, markup=False, soft_wrap=True)


def _state(key: Any) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if not key.is_live:
        return "expired"
    return "works" if key.expires_at is None else f"until {_cell(key.expires_at)}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value.strftime("%Y-%m-%d %H:%M") if hasattr(value, "strftime") else str(value)
