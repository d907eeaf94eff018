"""Commands `preftune datasets …` on versions."""

from functools import partial
from typing import Annotated, Any, Final

import typer

from preftune.cli.console import connected, err, out
from preftune.cli.dataset_report import print_json
from preftune.cli.listing import Item, collect, named, print_list, time_column
from preftune.cli.options import AsJson, Limit, Quiet, Url

DatasetId = Annotated[
    str, typer.Argument(metavar="DATASET", help="A dataset's id (its newest version), or one version: ds_…@<version>.")
]
Lines = Annotated[list[int] | None, typer.Option(min=1, help="A line of the version that is changed; repeatable.")]
MAX_SHOWN = 100


def register(app: typer.Typer) -> None:
    for command in (versions, change, merge, split, diff):
        app.command()(command)


def _origin(item: Item) -> object:
    return (item["made_from"] or {}).get("how", "upload")


_COLUMNS: Final = (
    named("id", is_whole=True),
    named("num_accepted", "rows", is_number=True),
    named("status"),
    named("origin", "made by"),
    time_column("created_at", "created (UTC)"),
    named("sha256", may_go=True),
)


def versions(
    dataset: DatasetId, limit: Limit = 100, as_json: AsJson = False, quiet: Quiet = False, url: Url = None
) -> None:
    """List the versions of a dataset, the newest first."""
    with connected(url) as client:
        found, has_more = collect(partial(client.datasets.versions, dataset), limit)
    shown = found if as_json else [{**item, "origin": _origin(item)} for item in found]
    print_list(shown, _COLUMNS, as_json=as_json, quiet=quiet, has_more=has_more)


def change(
    dataset: DatasetId,
    append: Annotated[list[str] | None, typer.Option(help="A dataset whose rows are added; repeatable.")] = None,
    *,
    drop_line: Lines = None,
    swap_line: Lines = None,
    drop_duplicates: Annotated[bool, typer.Option("--drop-duplicates", help="Keep the first of equal rows.")] = False,
    base_version: Annotated[int | None, typer.Option(min=1, help="Version to change; default: the newest.")] = None,
    url: Url = None,
) -> None:
    """Make the next version of a dataset: rows added, dropped or swapped; print its name."""
    wanted: dict[str, Any] = {
        "append": append or [],
        "drop_lines": drop_line or [],
        "swap_lines": swap_line or [],
        "drop_duplicates": drop_duplicates,
        "base_version": base_version,
    }
    with connected(url) as client:
        _print_made(client.datasets.change(dataset, **wanted))


def merge(
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET…", help="Ids, in the order of their rows.")],
    name: Annotated[str | None, typer.Option(help="A name to recognise it by.")] = None,
    drop_duplicates: Annotated[bool, typer.Option("--drop-duplicates", help="Keep the first of equal rows.")] = False,
    url: Url = None,
) -> None:
    """Make a new dataset of the rows of others; print its id."""
    with connected(url) as client:
        _print_made(client.datasets.merge(datasets, name=name, drop_duplicates=drop_duplicates))


def split(
    dataset: DatasetId,
    fractions: Annotated[list[float], typer.Argument(help="Share of each part, together 1: 0.9 0.1")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same parts.")] = 0,
    url: Url = None,
) -> None:
    """Make a new dataset of each part, with no prompt in two of them; print their ids."""
    with connected(url) as client:
        for part in client.datasets.split(dataset, fractions, seed=seed):
            _print_made(part)


def diff(
    dataset: DatasetId,
    against: Annotated[str, typer.Argument(metavar="OLDER", help="The older one: ds_…@<version>.")],
    url: Url = None,
) -> None:
    """Compare a version with an older one: counts and the first rows that they do not have in common, as JSON."""
    with connected(url) as client:
        print_json(client.datasets.diff(dataset, against, limit=MAX_SHOWN))


def _print_made(dataset: dict[str, Any]) -> None:
    err.print(f"{dataset['num_accepted']:,} rows", markup=False)
    out.print(dataset["id"], markup=False, soft_wrap=True)
