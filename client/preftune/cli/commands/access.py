"""Commands `preftune usage` and `preftune audit`: what was taken and done, asked of the running service."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from preftune.cli.console import connected, out

Url = Annotated[str | None, typer.Option(help="The service; default PREFTUNE_URL or this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="As the API answers, one object a line.")]


def register(app: typer.Typer) -> None:
    app.command()(usage)
    app.command()(audit)


def usage(as_json: AsJson = False, url: Url = None) -> None:
    """What the project stores, by what takes it, what to delete first, and what it may."""
    with connected(url) as client:
        found = client.usage()
    if as_json:
        out.print(json.dumps(found), markup=False, soft_wrap=True)
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


def audit(
    action: Annotated[str | None, typer.Option(help="Only this action, such as job.submit.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only acts of this key's id, user or operator:<user>.")] = None,
    key: Annotated[str | None, typer.Option(help="Only acts with this key: key_…")] = None,
    object: Annotated[str | None, typer.Option(help="Only acts on this object: job_…, ds_…, key_…")] = None,
    outcome: Annotated[str | None, typer.Option(help="done or refused.")] = None,
    project: Annotated[str | None, typer.Option(help="Only of this project; others are for operators.")] = None,
    *,
    since: Annotated[str | None, typer.Option(help="Not before: 2026-11-30T08:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Events, the newest.")] = 50,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Who did what, newest first; needs a key of scope admin, for all projects one of scope operator."""
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
        events = client.audit(limit=limit, **where)
    if as_json:
        for event in events:
            out.print(json.dumps(event), markup=False, soft_wrap=True)
        return
    table = Table("when", "who", "from", "project", "action", "object", "outcome", box=None)
    for event in events:
        names = ("created_at", "actor", "address", "project_id", "action", "object_id", "outcome")
        table.add_row(*(Text(str(event[name] or "")) for name in names))
    out.print(table)


def _print(sizes: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False)
    for name, size in sizes.items():
        table.add_row(Text(f"  {name}"), Text(f"{size:,}", justify="right"))
    out.print(table)


def _of(taken: int, most: int | None) -> str:
    return f"{taken:,}" if most is None else f"{taken:,} of {most:,}"
