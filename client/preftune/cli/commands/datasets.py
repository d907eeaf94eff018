"""Commands `preftune datasets …`."""

import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from preftune import ApiError, UploadInterrupted
from preftune.cli.console import TEMPLATE_KWARGS, confirm, connected, err, fail, for_each, json_object, out, print_error
from preftune.cli.dataset_report import print_json, print_report, print_statistics, says_all
from preftune.cli.extras import from_extra
from preftune.cli.groups import Group
from preftune.cli.listing import collect, named, print_json_lines, print_list, time_column
from preftune.cli.options import AsJson, BaseModel, DatasetId, Limit, Quiet, TemplateKwargs, Url, Yes
from preftune.cli.words import as_options, counted

app = typer.Typer(help="Check, upload, list and inspect datasets.", no_args_is_help=True, cls=Group)
DatasetIds = Annotated[list[str], typer.Argument(metavar="DATASET", help="Ids of datasets: ds_…")]
DataFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="JSONL, JSON, CSV, TSV, Parquet or Arrow; also compressed.")
]
Kind = Annotated[str, typer.Option(help="Type of data: preference, demonstration, unpaired or responses.")]
OnError = Annotated[
    str, typer.Option(help="If a row is invalid: reject the file and list every error, or skip the row.")
]
Format = Annotated[str, typer.Option(help="Layout of the rows; auto recognises it.")]
Column = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=COLUMN", help="Read a field from a column: prompt=question. Repeatable."),
]
Value = Annotated[
    list[str] | None,
    typer.Option(metavar="VALUE=MEANING", help="What a verdict means: 0=first, 1=second, 2=tie. Repeatable."),
]
Ignore = Annotated[list[str] | None, typer.Option(help="Ignore a column, or messages[].key. Repeatable.")]
Ties = Annotated[str, typer.Option(help="Pairs whose own scores are equal: keep or drop.")]
Split = Annotated[str | None, typer.Option(help="Which dataset of a tar of a saved DatasetDict.")]


@app.command()
def upload(
    file: DataFile,
    name: Annotated[str | None, typer.Option(help="A name to recognise the dataset by; default: the file's.")] = None,
    kind: Kind = "preference",
    on_error: OnError = "reject",
    format: Format = "auto",
    column: Column = None,
    value: Value = None,
    ignore: Ignore = None,
    ties: Ties = "keep",
    split: Split = None,
    *,
    resume: Annotated[str | None, typer.Option(metavar="UPLOAD", help="Continue an interrupted upload: upl_…")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 if there are warnings; the dataset is kept.")
    ] = False,
    url: Url = None,
) -> None:
    """Upload a file and print the dataset's id; the report goes to stderr. Large files go in parts, resumable."""
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
    name: Annotated[str | None, typer.Option(help="A name to recognise the dataset by; default: its source.")] = None,
    kind: Kind = "preference",
    on_error: OnError = "reject",
    *,
    format: Format = "auto",
    column: Column = None,
    value: Value = None,
    ignore: Ignore = None,
    ties: Ties = "keep",
    url: Url = None,
) -> None:
    """Load a dataset of the Hugging Face hub with the datasets library on this machine, and upload it."""
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
    dataset_id: DatasetId,
    file: Annotated[Path, typer.Argument(help="File to write to.")],
    format: Annotated[
        str, typer.Option(help="original, parquet, or hf: a tar for datasets.load_from_disk.")
    ] = "original",
    url: Url = None,
) -> None:
    """Download a dataset: the file as uploaded, or the rows as jobs read them."""
    with connected(url) as client:
        out.print(str(client.datasets.download(dataset_id, file, format=format)), markup=False, soft_wrap=True)


def _reported(send: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the dataset; prints the report of a refused file and exits."""
    try:
        return send()
    except ApiError as error:
        if "report" not in error.problem:
            raise
        if not says_all(error.detail, error.problem["report"]):
            print_report(error.problem["report"], err)
        print_error(as_options(error.detail))
        raise typer.Exit(1) from None


def _print_uploaded(dataset: dict[str, Any]) -> None:
    print_report(dataset["report"], err)
    rows = counted(dataset["num_rows"], "row")
    err.print(f"{dataset['num_accepted']:,} of {rows} accepted, format {dataset['format']}", markup=False)
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


_COLUMNS: Final = (
    named("id", is_whole=True),
    named("name"),
    named("kind"),
    named("num_accepted", "rows", is_number=True),
    named("status"),
    time_column("created_at", "created (UTC)"),
)


@app.command("list")
def list_datasets(limit: Limit = 100, as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """List datasets, the newest first."""
    with connected(url) as client:
        found, has_more = collect(client.datasets.list, limit)
    print_list(found, _COLUMNS, as_json=as_json, quiet=quiet, has_more=has_more, nothing="No datasets.")


@app.command()
def show(dataset_id: DatasetId, as_json: AsJson = False, url: Url = None) -> None:
    """Show one dataset and the report on its file."""
    with connected(url) as client:
        dataset = client.datasets.get(dataset_id)
    if as_json:
        print_json_lines([dataset])
        return
    print_json({key: value for key, value in dataset.items() if key != "report"})
    print_report(dataset["report"])
    print_statistics(dataset["report"].get("statistics", {}))


@app.command()
def tokens(
    dataset_id: DatasetId,
    base_model: BaseModel,
    max_length: Annotated[int | None, typer.Option(help="The job's max_length in tokens; default 1024.")] = None,
    chat_template_kwargs: TemplateKwargs = None,
    url: Url = None,
) -> None:
    """Print as JSON how long the rows are in a base model's tokens, and how many a job would set aside and why."""
    kwargs = json_object(*TEMPLATE_KWARGS, chat_template_kwargs)
    with connected(url) as client:
        found = client.datasets.tokens(dataset_id, base_model, max_length=max_length, chat_template_kwargs=kwargs)
    print_json(found)


@app.command()
def rename(
    dataset_id: DatasetId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new name.")],
    url: Url = None,
) -> None:
    """Give a dataset another name."""
    with connected(url) as client:
        client.datasets.patch(dataset_id, name=name)


@app.command()
def delete(dataset_ids: DatasetIds, yes: Yes = False, url: Url = None) -> None:
    """Delete datasets that no unfinished job uses; finished jobs keep their results. Asks first in a terminal."""
    what = dataset_ids[0] if len(dataset_ids) == 1 else f"these {len(dataset_ids)} datasets"
    confirm(f"Delete {what}?", yes)
    with connected(url) as client:
        for_each(dataset_ids, client.datasets.delete)
