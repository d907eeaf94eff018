"""Commands `preftune usage` and `preftune audit`: what was taken and done, asked of the running service."""

from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from preftune.cli.console import connected, out
from preftune.cli.listing import named, print_json_lines, print_list
from preftune.cli.options import WORKING, AsJson, Limit, Quiet, Url


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=WORKING)(usage)
    app.command(rich_help_panel=WORKING)(audit)


def usage(as_json: AsJson = False, url: Url = None) -> None:
    """Show how many bytes the project stores, in what, what is largest, and its limit."""
    with connected(url) as client:
        found = client.usage()
    if as_json:
        print_json_lines([found])
        return
    most = found["limits"]["max_stored_bytes"]
    out.print(f"{found['project_id']}: {_of(found['stored_bytes'], most)} bytes stored", markup=False)
    _print({name.replace("_", " "): size for name, size in found["stored"].items() if size})
    if found["largest"]:
        out.print("largest:")
        _print({thing["id"]: thing["num_bytes"] for thing in found["largest"]})
    for disk in found.get("disks") or []:
        text = f"disk of {disk['what']}: {disk['free_bytes']:,} bytes free, reserve {disk['reserve_bytes']:,}"
        out.print(text, markup=False)


_COLUMNS: Final = (
    named("created_at", "when", is_whole=True),
    named("actor", "who", is_whole=True),
    named("address", "from", may_go=True),
    named("project_id", "project", may_go=True),
    named("action", is_whole=True),
    named("object_id", "object", is_whole=True),
    named("outcome"),
)


def audit(
    action: Annotated[str | None, typer.Option(help="Only events of this action, such as job.submit.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only events of this key's id, user or operator:<user>.")] = None,
    key: Annotated[str | None, typer.Option(help="Only events with this key: key_…")] = None,
    object: Annotated[str | None, typer.Option(help="Only events on this object: job_…, ds_…, key_…")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only events of this outcome: done or refused.")] = None,
    project: Annotated[
        str | None, typer.Option(help="Only events of this project; other projects are for operators.")
    ] = None,
    *,
    since: Annotated[str | None, typer.Option(help="Only from this time on: 2026-11-30T08:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Only before this time.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    quiet: Quiet = False,
    url: Url = None,
) -> None:
    """Show who did what, the newest first. Needs a key of scope admin; for all projects, one of scope operator."""
    where = {
        "action": action,
        "actor": actor,
        "key_id": key,
        "object_id": object,
        "outcome": outcome,
        "project_id": project,
        "since": since,
        "until": until,
    }
    with connected(url) as client:
        events = client.audit(limit=limit + 1, **where)
    print_list(
        events[:limit],
        _COLUMNS,
        as_json=as_json,
        quiet=quiet,
        has_more=len(events) > limit,
        nothing="No such events.",
    )


def _print(sizes: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False)
    for name, size in sizes.items():
        table.add_row(Text(f"  {name}"), Text(f"{size:,}", justify="right"))
    out.print(table)


def _of(taken: int, most: int | None) -> str:
    return f"{taken:,}" if most is None else f"{taken:,} of {most:,}"
