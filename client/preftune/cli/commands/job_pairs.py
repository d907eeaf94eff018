"""Commands `preftune jobs pairs | rerun | score`: single pairs of a job's data."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from preftune.cli.commands.jobs import JobId
from preftune.cli.console import connected, fail, out
from preftune.cli.listing import Column, Item, collect, named, print_json_lines, print_list
from preftune.cli.options import AsJson, Limit, Url

FLAGS: Final = "likely_mislabelled, never_learned, already_satisfied, forgotten or truncated"
MAX_PAIRS: Final = 1000
"""Pairs of a page of the API, and rows of a request for scores."""
_NUMBERS: Final = ("margin_first", "margin_last", "mislabelled_score")


def _figure(name: str) -> Column:
    def value(pair: Item) -> str:
        return "" if pair[name] is None else f"{pair[name]:.3f}"

    return Column(title=name, value=value, is_number=True)


_COLUMNS: Final = (
    named("line", is_number=True, is_whole=True),
    named("split"),
    *(_figure(name) for name in _NUMBERS),
    Column(title="flags", value=lambda pair: " ".join(pair["flags"]), is_whole=True),
)


def register(group: typer.Typer) -> None:
    for command in (pairs, rerun, score):
        group.command()(command)


def pairs(
    job: JobId,
    *,
    flag: Annotated[str | None, typer.Option(help=f"Only pairs with this flag: {FLAGS}.")] = None,
    split: Annotated[str | None, typer.Option(help="Only pairs of this split: train or validation.")] = None,
    sort: Annotated[
        str, typer.Option(help="A column to sort by; `-` before it: the largest first.")
    ] = "-mislabelled_score",
    limit: Limit = 20,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the pairs' line numbers only.")] = False,
    url: Url = None,
) -> None:
    """Show the report on the pairs of a finished job: margins, how likely a pair is mislabelled, flags."""
    with connected(url) as client:
        where = {"flag": flag, "split": split, "sort": sort}
        found, has_more = collect(lambda **page: client.jobs.pairs(job, **where, **page), limit, MAX_PAIRS)
    print_list(
        found, _COLUMNS, as_json=as_json, quiet=quiet, has_more=has_more, id_name="line", nothing="No such pairs."
    )


def rerun(
    job: JobId,
    exclude: Annotated[list[int] | None, typer.Option(help="Leave out the pair of this line. Repeatable.")] = None,
    exclude_flag: Annotated[
        list[str] | None, typer.Option(help=f"Leave out all training pairs with this flag: {FLAGS}. Repeatable.")
    ] = None,
    swap: Annotated[list[int] | None, typer.Option(help="Swap chosen and rejected of this line. Repeatable.")] = None,
    url: Url = None,
) -> None:
    """Submit the same job with some pairs left out or swapped, and print the new job's id."""
    with connected(url) as client:
        lines, swapped = [*(exclude or ())], [*(swap or ())]
        for flag in exclude_flag or ():
            lines += [pair["line"] for pair in client.jobs.all_pairs(job, flag=flag, split="train")]
        if exclude_flag and not lines and not swapped:
            fail(f"not submitted: no training pair of {job} has the flag {' or '.join(exclude_flag)}")
        unswapped = [line for line in dict.fromkeys(lines) if line not in swapped]
        out.print(client.jobs.rerun(job, exclude_lines=unswapped, swap_lines=swapped)["id"])


def score(
    job: JobId,
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="JSONL: prompt and response, or prompt, chosen and rejected."),
    ],
    url: Url = None,
) -> None:
    """Compute the implicit rewards of responses under a job's policy, and print one JSON object a line."""
    rows = _read(file)
    are_pairs = bool(rows) and "chosen" in rows[0]
    with connected(url) as client:
        for start in range(0, len(rows), MAX_PAIRS):
            part = rows[start : start + MAX_PAIRS]
            print_json_lines(client.jobs.score(job, pairs=part) if are_pairs else client.jobs.score(job, items=part))


def _read(file: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; exits where a line is none."""
    rows = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            fail(f"{file}: line {number} is not a JSON object", code=2)
        rows.append(row)
    return rows
