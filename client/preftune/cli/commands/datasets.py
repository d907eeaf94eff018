"""Commands `preftune datasets …`."""

import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from preftune import ApiError, UploadInterrupted
from preftune.cli.console import TEMPLATE_KWARGS, connected, err, fail, json_object, out
from preftune.cli.dataset_report import print_json, print_report, print_statistics
from preftune.cli.extras import from_extra
from preftune.cli.groups import Group

app = typer.Typer(help="Upload and inspect datasets.", no_args_is_help=True, cls=Group)
Format = Annotated[str, typer.Option(help="Layout of the rows; auto recognises it.")]
Column = Annotated[
    list[str] | None, typer.Option(help="Maps a column of the file: prompt=question reads the prompt from question.")
]
Value = Annotated[list[str] | None, typer.Option(help="What a verdict means: 0=first, 1=second, 2=tie.")]
Ignore = Annotated[list[str] | None, typer.Option(help="A column, or messages[].key, to ignore.")]
Ties = Annotated[str, typer.Option(help="keep or drop: pairs whose own scores are equal.")]
Split = Annotated[str | None, typer.Option(help="Which dataset of a tar of a saved DatasetDict.")]
Url = Annotated[str | None, typer.Option(help="The service; default PREFTUNE_URL or this machine.")]


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSONL, JSON, CSV, TSV, Parquet or Arrow.")],
    name: Annotated[str | None, typer.Option(help="A name to recognise it by; default: the file's name.")] = None,
    kind: Annotated[str, typer.Option(help="preference, demonstration or unpaired.")] = "preference",
    on_error: Annotated[str, typer.Option(help="reject: all or nothing; skip: keep the good rows.")] = "reject",
    format: Format = "auto",
    column: Column = None,
    value: Value = None,
    ignore: Ignore = None,
    ties: Ties = "keep",
    split: Split = None,
    *,
    resume: Annotated[str | None, typer.Option(help="Continue this interrupted upload: upl_…")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings make exit code 1; the dataset is kept.")] = False,
    url: Url = None,
) -> None:
    """Send a file and print the report; the dataset's id comes last. Large files go in parts, which can be resumed."""
    asked = reading_options(format, column, value, ignore, ties, split) | {"kind": kind, "on_error": on_error}
    with connected(url) as client:
        try:
            dataset = _reported(lambda: _upload(client, file, name=name, upload_id=resume, **asked))
        except UploadInterrupted as error:
            fail(f"{error}\nTo continue: preftune datasets upload {shlex.quote(str(file))} --resume {error.upload_id}")
    _print_uploaded(dataset)
    if strict and dataset["report"]["counts"]:
        fail("the dataset is there, but its report has warnings, and --strict was given")


@app.command()
def pull(
    source: Annotated[str, typer.Argument(help="<organisation>/<name>@<commit> of the hub, or a folder like one.")],
    config: Annotated[str | None, typer.Option(help="Configuration of the repository, where it has several.")] = None,
    split: Annotated[str | None, typer.Option(help="Split, where it has several.")] = None,
    name: Annotated[str | None, typer.Option(help="A name to recognise it by; default: its source.")] = None,
    kind: Annotated[str, typer.Option(help="preference, demonstration or unpaired.")] = "preference",
    on_error: Annotated[str, typer.Option(help="reject: all or nothing; skip: keep the good rows.")] = "reject",
    *,
    format: Format = "auto",
    column: Column = None,
    value: Value = None,
    ignore: Ignore = None,
    ties: Ties = "keep",
    url: Url = None,
) -> None:
    """Load a dataset of the Hugging Face hub through its datasets library on this machine, and upload it."""
    asked = reading_options(format, column, value, ignore, ties, None) | {"kind": kind, "on_error": on_error}
    with tempfile.TemporaryDirectory(prefix="preftune-pull-") as folder:
        pulled = from_extra("preftune.cli.dataset_pull", "pull", "preftune[hub]")(source, config, split, Path(folder))
        with connected(url) as client:
            dataset = _reported(
                lambda: _upload(client, pulled.path, name=name or pulled.name, metadata=pulled.metadata, **asked)
            )
    _print_uploaded(dataset)


@app.command()
def download(
    dataset_id: str,
    file: Annotated[Path, typer.Argument(help="Where to write it.")],
    format: Annotated[
        str, typer.Option(help="original, parquet, or hf: a tar for datasets.load_from_disk.")
    ] = "original",
    url: Url = None,
) -> None:
    """Fetch the file as uploaded, or the rows as jobs read them."""
    with connected(url) as client:
        out.print(str(client.datasets.download(dataset_id, file, format=format)), markup=False, soft_wrap=True)


def _reported(send: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the dataset; prints the report of a refused file and exits."""
    try:
        return send()
    except ApiError as error:
        if "report" not in error.problem:
            raise
        print_report(error.problem["report"])
        err.print(error.detail, style="red", markup=False)
        raise typer.Exit(1) from None


def _print_uploaded(dataset: dict[str, Any]) -> None:
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


def reading_options(
    format: str,
    column: list[str] | None,
    value: list[str] | None,
    ignore: list[str] | None,
    ties: str,
    split: str | None,
) -> dict[str, Any]:
    """Return the options of reading the file, as the API takes them."""
    return {
        "format": format,
        "columns": _named("--column", "prompt=question", column or []),
        "values": _named("--value", "0=first", value or []),
        "ignore": ignore or [],
        "ties": ties,
        "split": split,
    }


def _named(option: str, example: str, pairs: list[str]) -> dict[str, str]:
    named = dict(pair.partition("=")[::2] for pair in pairs)
    if not all(named.keys()) or not all(named.values()):
        fail(f"{option} takes two names, as in {option} {example}", code=2)
    return named


@app.command("list")
def list_datasets(url: Url = None) -> None:
    """List the newest datasets."""
    with connected(url) as client:
        datasets = client.datasets.list(limit=100)["data"]
    table = Table("id", "name", "kind", "rows", "status", "created", box=None)
    for item in datasets:
        row = (item["id"], item["name"], item["kind"], item["num_accepted"], item["status"], item["created_at"])
        table.add_row(*(Text(str(cell)) for cell in row))
    out.print(table)


@app.command()
def show(dataset_id: str, url: Url = None) -> None:
    """Show one dataset and its report."""
    with connected(url) as client:
        dataset = client.datasets.get(dataset_id)
    print_json({key: value for key, value in dataset.items() if key != "report"})
    print_report(dataset["report"])
    print_statistics(dataset["report"].get("statistics", {}))


@app.command()
def tokens(
    dataset_id: str,
    base_model: Annotated[str, typer.Argument(help="A name from `preftune models list`, or a job.")],
    max_length: Annotated[int | None, typer.Option(help="The job's max_length; default 1024.")] = None,
    chat_template_kwargs: Annotated[
        str | None, typer.Option(help='The job\'s, as JSON: {"enable_thinking": false}')
    ] = None,
    url: Url = None,
) -> None:
    """Print lengths in a base model's tokens, and how many rows a job would set aside, and why, as JSON."""
    kwargs = json_object(*TEMPLATE_KWARGS, chat_template_kwargs)
    with connected(url) as client:
        found = client.datasets.tokens(dataset_id, base_model, max_length=max_length, chat_template_kwargs=kwargs)
    print_json(found)


@app.command()
def delete(dataset_id: str, url: Url = None) -> None:
    """Delete a dataset that no live job uses."""
    with connected(url) as client:
        client.datasets.delete(dataset_id)
