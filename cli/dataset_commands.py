"""`preftune datasets …`."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from cli.console import connected, err, fail, out
from preftune import ApiError, UploadInterrupted

app = typer.Typer(help="Upload and look at data sets.", no_args_is_help=True)
Url = Annotated[str | None, typer.Option(help="The service; default PREFTUNE_URL or this machine.")]
MAX_ISSUES_SHOWN = 20


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSONL, JSON, CSV, TSV or Parquet.")],
    name: Annotated[str | None, typer.Option(help="For people; default the file's name.")] = None,
    kind: Annotated[str, typer.Option(help="preference, demonstration or unpaired.")] = "preference",
    on_error: Annotated[str, typer.Option(help="reject: all or nothing; skip: keep the good rows.")] = "reject",
    resume: Annotated[str | None, typer.Option(help="Go on with this upload, which broke off: upl_…")] = None,
    url: Url = None,
) -> None:
    """Send a file and print the report; the data set's id comes last. Large files go in parts, which can be resumed."""
    with connected(url) as client:
        try:
            dataset = _upload(client, file, name=name, kind=kind, on_error=on_error, upload_id=resume)
        except UploadInterrupted as error:
            fail(f"{error}\nTo go on: preftune datasets upload {shlex.quote(str(file))} --resume {error.upload_id}")
        except ApiError as error:
            if "report" not in error.problem:
                raise
            print_report(error.problem["report"])
            err.print(error.detail, style="red", markup=False)
            raise typer.Exit(1) from None
    print_report(dataset["report"])
    out.print(f"{dataset['num_accepted']} of {dataset['num_rows']} rows accepted, format {dataset['format']}")
    out.print(dataset["id"])


def _upload(client: Any, file: Path, **options: Any) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(f"uploading {file.name}", total=file.stat().st_size)
        dataset: dict[str, Any] = client.datasets.upload(
            file, on_progress=lambda num_bytes: progress.advance(task, num_bytes), **options
        )
    return dataset


@app.command("list")
def list_datasets(url: Url = None) -> None:
    """The newest data sets."""
    with connected(url) as client:
        datasets = client.datasets.list(limit=100)["data"]
    table = Table("id", "name", "kind", "rows", "status", "created", box=None)
    for item in datasets:
        row = (item["id"], item["name"], item["kind"], item["num_accepted"], item["status"], item["created_at"])
        table.add_row(*(Text(str(cell)) for cell in row))
    out.print(table)


@app.command()
def show(dataset_id: str, url: Url = None) -> None:
    """One data set and its report."""
    with connected(url) as client:
        dataset = client.datasets.get(dataset_id)
    out.print_json(data={key: value for key, value in dataset.items() if key != "report"})
    print_report(dataset["report"])


@app.command()
def delete(dataset_id: str, url: Url = None) -> None:
    """Delete a data set that no live job uses."""
    with connected(url) as client:
        client.datasets.delete(dataset_id)


def print_report(report: dict[str, Any]) -> None:
    """The counts by code, and the first issues with their lines. File text is shown as text."""
    if not report["issues"]:
        return
    table = Table("line", "severity", "code", "detail", box=None)
    for issue in report["issues"][:MAX_ISSUES_SHOWN]:
        line = "" if issue["line"] is None else str(issue["line"])
        style = "red" if issue["severity"] == "error" else "yellow"
        table.add_row(line, Text(issue["severity"], style), Text(issue["code"]), Text(issue["detail"]))
    out.print(table)
    hidden = sum(report["counts"].values()) - min(len(report["issues"]), MAX_ISSUES_SHOWN)
    if hidden > 0:
        out.print(f"… and {hidden} more")
