"""`preftune usage`: what a project has taken, asked of the running service."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cli.console import connected, out

Url = Annotated[str | None, typer.Option(help="The service; default PREFTUNE_URL or this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]


def register(app: typer.Typer) -> None:
    app.command()(usage)


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


def _print(sizes: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False)
    for name, size in sizes.items():
        table.add_row(Text(f"  {name}"), Text(f"{size:,}", justify="right"))
    out.print(table)


def _of(taken: int, most: int | None) -> str:
    return f"{taken:,}" if most is None else f"{taken:,} of {most:,}"
