"""Commands `preftune sweep …`."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from preftune import Client
from preftune.cli.changed_pairs import score_changed
from preftune.cli.console import confirm, connected, err, fail, for_each, json_or_text, out, print_status, read_request
from preftune.cli.estimates import interval_text
from preftune.cli.listing import Column, Item, collect, named, print_json_lines, print_list, time_column
from preftune.cli.options import AsJson, BaseModel, DatasetId, Limit, Quiet, Url, Yes
from preftune.cli.patience import follow
from preftune.cli.words import counted

SweepId = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's id: sweep_…")]
SweepIds = Annotated[list[str], typer.Argument(metavar="SWEEP", help="Ids of sweeps: sweep_…")]
app = typer.Typer(help="Run sweeps: a job once for each combination of settings.", no_args_is_help=True)


@app.command()
def start(
    base_model: BaseModel,
    dataset_id: DatasetId,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="SETTING=VALUES", help="A setting and its values: beta=0.05,0.1,0.3. Repeatable."),
    ] = None,
    request: Annotated[
        Path | None, typer.Option(help="A JSON file with other fields of POST /sweeps: random, members, job, …")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="all, or successive_halving: the best go on at common shares of their steps.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Held-out metric by which the best member is chosen.")] = None,
    max_parallel: Annotated[int | None, typer.Option(help="How many members are queued or running at once.")] = None,
    name: Annotated[str | None, typer.Option(help="A name to recognise the sweep by.")] = None,
    yes: Yes = False,
    follow: Annotated[bool, typer.Option("--watch", help="Watch the sweep until it ends.")] = False,
    url: Url = None,
) -> None:
    """Show how many jobs a sweep has and what they would take, ask for confirmation, start it and print its id."""
    given: dict[str, Any] = read_request(request, "job")
    given["job"] = {"base_model": base_model, "dataset_id": dataset_id, **given.get("job", {})}
    if grid:
        given["grid"] = dict(_values(item) for item in grid)
    own = {"strategy": strategy, "metric": metric, "max_parallel": max_parallel, "name": name}
    given |= {key: value for key, value in own.items() if value is not None}
    with connected(url, rest="--request") as client:
        _print_preview(client.sweeps.preview(**given))
        if not yes:
            typer.confirm("Start them?", abort=True, err=True)
        sweep = client.sweeps.create(**given)
        out.print(sweep["id"])
        if follow:
            _watch(client, sweep["id"])


@app.command()
def show(sweep: SweepId, as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """Show a sweep's members with their settings and results, the best one marked. --quiet prints the jobs' ids."""
    with connected(url) as client:
        found = client.sweeps.get(sweep)
    if as_json and not quiet:
        print_json_lines([found])
    else:
        _print(found, as_json=as_json, quiet=quiet)


def _counts(sweep: Item) -> str:
    return ", ".join(f"{number} {status}" for status, number in sweep["counts"].items())


_COLUMNS: Final = (
    named("id", is_whole=True),
    named("name"),
    named("status"),
    Column(title="members", value=_counts),
    named("best_job_id", "best", is_whole=True, may_go=True),
    time_column("created_at", "created (UTC)"),
)


@app.command("list")
def list_sweeps(limit: Limit = 100, as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """List sweeps, the newest first."""
    with connected(url) as client:
        found, has_more = collect(client.sweeps.list, limit)
    print_list(found, _COLUMNS, as_json=as_json, quiet=quiet, has_more=has_more, nothing="No sweeps.")


@app.command()
def watch(sweep: SweepId, url: Url = None) -> None:
    """Print what changes until the sweep has ended, then its members."""
    with connected(url) as client:
        _watch(client, sweep)


@app.command()
def events(sweep: SweepId, url: Url = None) -> None:
    """Show what happened to a sweep, and what was decided at its rungs and why."""
    after, has_more = 0, True
    with connected(url) as client:
        while has_more:
            page = client.sweeps.events(sweep, after=after)
            for event in page["data"]:
                out.print(f"{event['at'][:19]}Z  {event['message']}", markup=False, soft_wrap=True)
            after, has_more = page["last_seq"], page["has_more"]


@app.command()
def compare(
    sweep: SweepId,
    report: Annotated[Path | None, typer.Option(help="Write it as one HTML file instead.")] = None,
    tokens: Annotated[
        int, typer.Option(min=0, max=10, help="In the report: pairs that changed sides whose tokens are coloured.")
    ] = 0,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Compare members: accuracy against divergence, the setting to take and why, paired differences, what differs."""
    with connected(url) as client:
        if tokens:
            score_changed(client, client.sweeps.comparison(sweep), tokens)
        if report is not None:
            report.write_text(client.sweeps.comparison_html(sweep), encoding="utf-8")
        elif as_json:
            print_json_lines([client.sweeps.comparison(sweep)])
        else:
            out.print(client.sweeps.comparison_text(sweep), markup=False, highlight=False, soft_wrap=True, end="")


@app.command()
def cancel(sweeps: SweepIds, url: Url = None) -> None:
    """Cancel sweeps with all members that have not ended."""
    with connected(url) as client:
        for_each(sweeps, lambda sweep: print_status(client.sweeps.cancel(sweep)))


@app.command()
def pause(sweeps: SweepIds, url: Url = None) -> None:
    """Pause all members of sweeps, each at a checkpoint."""
    with connected(url) as client:
        for_each(sweeps, lambda sweep: print_status(client.sweeps.pause(sweep)))


@app.command()
def resume(sweeps: SweepIds, url: Url = None) -> None:
    """Resume paused sweeps."""
    with connected(url) as client:
        for_each(sweeps, lambda sweep: print_status(client.sweeps.resume(sweep)))


@app.command()
def delete(sweeps: SweepIds, yes: Yes = False, url: Url = None) -> None:
    """Delete the records of sweeps that have ended; their jobs stay. Asks first in a terminal."""
    confirm(f"Delete {sweeps[0] if len(sweeps) == 1 else counted(len(sweeps), 'sweep')}? The jobs stay.", yes)
    with connected(url) as client:
        for_each(sweeps, client.sweeps.delete)


def _values(text: str) -> tuple[str, list[Any]]:
    """Parse `setting=value,value`; a value is JSON, or else a text."""
    path, equals, values = text.partition("=")
    if not equals or not path or not values:
        fail("--grid takes a setting and its values, such as beta=0.05,0.1,0.3", code=2)
    return path, [json_or_text(value) for value in values.split(",")]


def _print_preview(preview: dict[str, Any]) -> None:
    number = preview["num_members"]
    taken = ", ".join(f"{count} take over {stage}" for stage, count in preview["num_shared"].items() if count)
    err.print(counted(number, "job") + (f"; {taken}" if taken else ""), markup=False)
    when = preview["reason"] if preview["seconds"] is None else f"together {interval_text(preview['seconds'])}"
    err.print(when, markup=False, soft_wrap=True)
    if preview["rungs"]:
        shares = ", ".join(f"{100 * share:.0f} %" for share in preview["rungs"])
        work = f"{100 * preview['work_share']:.0f} %"
        err.print(f"compared at {shares} of their steps; {work} of the steps of all", markup=False)
    if preview["no_best_reason"]:
        err.print(preview["no_best_reason"], markup=False, soft_wrap=True)


def _watch(client: Client, sweep_id: str) -> None:
    _print(follow(lambda: client.sweeps.get(sweep_id), _counts))


def _print(sweep: Item, *, as_json: bool = False, quiet: bool = False) -> None:
    def mark(member: Item) -> str:
        if member["job_id"] == sweep["best_job_id"]:
            return "best"
        return "dropped" if member["is_dropped"] else ""

    def settings(member: Item) -> str:
        given = member["overrides"].items()
        return member["error"] or " ".join(f"{name}={json.dumps(value)}" for name, value in given)

    columns = (
        Column(title="", value=mark),
        named("job_id", "job", is_whole=True),
        named("status"),
        Column(title=sweep["metric"], value=_member_figure, is_number=True),
        Column(title="settings", value=settings, is_whole=True),
    )
    print_list(sweep["members"], columns, as_json=as_json, quiet=quiet, id_name="job_id")
    if sweep["no_best_reason"] and not (as_json or quiet):
        err.print(sweep["no_best_reason"], markup=False, soft_wrap=True)


def _member_figure(member: Item) -> str:
    """Return the figure of the published policy, else that of the last rung that was decided."""
    rungs = [rung for rung in member["rungs"] if rung["value"] is not None]
    if member["value"] is not None or not rungs:
        return _figure(member["value"])
    return f"{_figure(rungs[-1]['value'])} at step {rungs[-1]['step']}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
