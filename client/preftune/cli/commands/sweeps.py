"""Commands `preftune sweep …`."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from preftune import Client
from preftune.cli.console import connected, err, fail, out
from preftune.cli.estimates import interval_text

Url = Annotated[str | None, typer.Option(help="The service; default PREFTUNE_URL or this machine.")]
SweepId = Annotated[str, typer.Argument(metavar="SWEEP")]
POLL_SECONDS = 2.0
app = typer.Typer(help="Run a job once for each combination of settings, as one.", no_args_is_help=True)


@app.command()
def start(
    base_model: Annotated[str, typer.Argument(metavar="BASE_MODEL", help="A name from `preftune models list`.")],
    dataset_id: Annotated[str, typer.Argument(metavar="DATASET", help="An id from `preftune datasets list`.")],
    grid: Annotated[
        list[str] | None, typer.Option(help="A setting and its values: beta=0.05,0.1,0.3; may be repeated.")
    ] = None,
    request: Annotated[
        Path | None, typer.Option(help="More fields of POST /sweeps, as a JSON file: random, members, job …")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Held-out metric that the best is chosen by.")] = None,
    max_parallel: Annotated[int | None, typer.Option(help="Members queued or running at most at a time.")] = None,
    name: Annotated[str | None, typer.Option(help="A name to recognise it by.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it starts.")] = False,
    follow: Annotated[bool, typer.Option("--watch", help="Show the sweep until it ends.")] = False,
    url: Url = None,
) -> None:
    """Show the number of jobs and what they would take, ask, and start them; print the sweep's id."""
    given: dict[str, Any] = _read(request)
    given["job"] = {"base_model": base_model, "dataset_id": dataset_id, **given.get("job", {})}
    if grid:
        given["grid"] = dict(_values(item) for item in grid)
    own = {"metric": metric, "max_parallel": max_parallel, "name": name}
    given |= {key: value for key, value in own.items() if value is not None}
    with connected(url) as client:
        _print_preview(client.sweeps.preview(**given))
        if not yes:
            typer.confirm("Start them?", abort=True, err=True)
        sweep = client.sweeps.create(**given)
        out.print(sweep["id"])
        if follow:
            _watch(client, sweep["id"])


@app.command()
def show(sweep: SweepId, url: Url = None) -> None:
    """Show a sweep's members with their values, the best one marked."""
    with connected(url) as client:
        _print(client.sweeps.get(sweep))


@app.command("list")
def list_sweeps(url: Url = None) -> None:
    """List the newest sweeps."""
    with connected(url) as client:
        found = client.sweeps.list(limit=100)["data"]
    table = Table("id", "name", "status", "members", "best", "created", box=None)
    for sweep in found:
        counts = ", ".join(f"{number} {status}" for status, number in sweep["counts"].items())
        cells = (sweep["id"], sweep["name"], sweep["status"], counts, sweep["best_job_id"], sweep["created_at"])
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in cells))
    out.print(table)


@app.command()
def watch(sweep: SweepId, url: Url = None) -> None:
    """Print what changes until the sweep has ended, then its members."""
    with connected(url) as client:
        _watch(client, sweep)


@app.command()
def cancel(sweep: SweepId, url: Url = None) -> None:
    """Cancel a sweep and all members that have not ended."""
    with connected(url) as client:
        out.print(client.sweeps.cancel(sweep)["status"])


@app.command()
def pause(sweep: SweepId, url: Url = None) -> None:
    """Pause all members at a checkpoint each."""
    with connected(url) as client:
        out.print(client.sweeps.pause(sweep)["status"])


@app.command()
def resume(sweep: SweepId, url: Url = None) -> None:
    """Resume a paused sweep."""
    with connected(url) as client:
        out.print(client.sweeps.resume(sweep)["status"])


def _values(text: str) -> tuple[str, list[Any]]:
    """Parse `setting=value,value`; a value is JSON, or else a text."""
    path, equals, values = text.partition("=")
    if not equals or not path or not values:
        fail("--grid takes a setting and its values, such as beta=0.05,0.1,0.3", code=2)
    return path, [_value(value) for value in values.split(",")]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"--request: {path.name} cannot be read as JSON ({error})", code=2)
    if not isinstance(value, dict) or not isinstance(value.get("job", {}), dict):
        fail("--request takes a JSON object, with an object as its job", code=2)
    return value


def _print_preview(preview: dict[str, Any]) -> None:
    number = preview["num_members"]
    taken = ", ".join(f"{count} take over {stage}" for stage, count in preview["num_shared"].items() if count)
    err.print(f"{number} jobs" + (f"; {taken}" if taken else ""), markup=False)
    when = preview["reason"] if preview["seconds"] is None else f"together {interval_text(preview['seconds'])}"
    err.print(when, markup=False, soft_wrap=True)


def _watch(client: Client, sweep_id: str) -> None:
    shown = None
    while True:
        sweep = client.sweeps.get(sweep_id)
        counts = ", ".join(f"{number} {status}" for status, number in sweep["counts"].items())
        if (now := f"{sweep['status']}: {counts}") != shown:
            out.print(now, markup=False)
            shown = now
        if sweep["finished_at"] is not None:
            _print(sweep)
            return
        time.sleep(POLL_SECONDS)


def _print(sweep: dict[str, Any]) -> None:
    table = Table("", "job", "status", sweep["metric"], "settings", box=None)
    for member in sweep["members"]:
        value = "" if member["value"] is None else f"{member['value']:.4f}"
        settings = " ".join(f"{name}={json.dumps(setting)}" for name, setting in member["overrides"].items())
        is_best = member["job_id"] == sweep["best_job_id"]
        cells = ("best" if is_best else "", member["job_id"], member["status"], value, member["error"] or settings)
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)
