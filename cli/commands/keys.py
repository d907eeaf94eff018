"""Commands `preftune keys …`: run where the service's settings are, such as in a container of its API."""

from typing import Annotated, Any, Final

import typer

from cli.options import DataDir
from cli.service_backend import operating
from preftune.cli.console import err, fail, out
from preftune.cli.extras import from_extra
from preftune.cli.listing import named, print_list
from preftune.cli.options import AsJson, Limit, Quiet

app = typer.Typer(help="Create, list, rotate and revoke API keys of this deployment.", no_args_is_help=True)
SECONDS_OF_DAY = 24 * 3600.0
_KEYS = "core.services.access.api_keys"

KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="A key's id, not its secret: key_…")]
Project = Annotated[str, typer.Option(help="Project that the key gives access to.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name to recognise the key by: who or what will hold it.")],
    scope: Annotated[
        str,
        typer.Option(
            help="What the key may do: use (chats, scores, feedback), read, write, admin or operator; from write on "
            "each includes all before it."
        ),
    ] = "write",
    project: Project = "default",
    days: Annotated[float | None, typer.Option(help="Days until the key expires; default: it does not.")] = None,
    keep_answers: Annotated[
        bool, typer.Option("--keep-answers", help="Let answers to requests with `store: true` be kept for feedback.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Create a key and print it. It is shown only once."""
    scopes = [member.value for member in from_extra("core.domain.access", "Scope")]
    if scope not in scopes:
        fail(f"--scope: must be {', '.join(scopes)}, not {scope!r}", code=2)
    lifetime_seconds = None if days is None else days * SECONDS_OF_DAY
    with operating(data_dir) as backend:
        chosen = from_extra("core.domain.access", "Scope")(scope)
        made = from_extra(_KEYS, "create")(
            backend, project, name, chosen, lifetime_seconds=lifetime_seconds, keeps_answers=keep_answers
        )
    _show(made)


_COLUMNS: Final = (
    named("id", is_whole=True),
    named("name"),
    named("project"),
    named("scope"),
    named("state"),
    named("created"),
    named("last_used", may_go=True),
)


@app.command("list")
def list_keys(
    project: Annotated[str | None, typer.Option(help="Only keys of this project.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
    quiet: Quiet = False,
    data_dir: DataDir = None,
) -> None:
    """List keys, without their secrets, the newest first."""
    with operating(data_dir) as backend:
        keys = from_extra(_KEYS, "list_keys")(backend, project)
    print_list(
        [_shown(key) for key in keys[:limit]],
        _COLUMNS,
        as_json=as_json,
        quiet=quiet,
        has_more=len(keys) > limit,
        nothing="No keys.",
    )


def _shown(key: Any) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "project": key.project_id,
        "scope": key.scope.value,
        "state": _state(key),
        "created": _cell(key.created_at),
        "last_used": _cell(key.last_used_at),
    }


@app.command()
def rotate(
    key_id: KeyId,
    grace_hours: Annotated[float, typer.Option(min=0, help="Hours for which the old key still works.")] = 24,
    data_dir: DataDir = None,
) -> None:
    """Create a new key to replace an old one, and print it. It is shown only once."""
    with operating(data_dir) as backend:
        made = from_extra(_KEYS, "rotate")(backend, key_id, grace_seconds=grace_hours * 3600)
    _show(made)
    hours = "1 more hour" if grace_hours == 1 else f"{grace_hours:g} more hours"
    err.print(f"{key_id} works for {hours}", markup=False)


@app.command()
def revoke(key_id: KeyId, data_dir: DataDir = None) -> None:
    """Revoke a key; it stops working within two seconds."""
    with operating(data_dir) as backend:
        from_extra(_KEYS, "revoke")(backend, key_id)
    err.print(f"{key_id} is revoked", markup=False)


def _show(made: Any) -> None:
    key = made.key
    err.print(
        f"{key.id}: {key.scope.value}, project {key.project_id}. Keep the key; it is shown only once:", markup=False
    )
    out.print(made.token, markup=False, soft_wrap=True)
    err.print("Clients send it when PREFTUNE_API_KEY is set to it. Once there is a key, every request needs one.")


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
