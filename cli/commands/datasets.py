"""`preftune datasets check`: a file checked on this machine, without a running service."""

from pathlib import Path
from typing import Annotated

import typer

from preftune.cli.commands.datasets import Column, Format, Ignore, Split, Ties, Value, reading_options
from preftune.cli.dataset_report import print_json, print_result
from preftune.cli.extras import from_extra


def check(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSONL, JSON, CSV, TSV, Parquet or Arrow.")],
    kind: Annotated[str, typer.Option(help="preference, demonstration or unpaired.")] = "preference",
    format: Format = "auto",
    column: Column = None,
    value: Value = None,
    ignore: Ignore = None,
    ties: Ties = "keep",
    split: Split = None,
    on_error: Annotated[str, typer.Option(help="reject: all or nothing; skip: the good rows count.")] = "reject",
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail the check too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The whole result as one JSON object.")] = False,
) -> None:
    """Check a file on this machine, without a service, by the same code. Exit code 0: good; 1: refused; 2: misuse."""
    asked = reading_options(format, column, value, ignore, ties, split) | {"kind": kind, "on_error": on_error}
    result = from_extra("cli.dataset_check", "check_locally")(file, asked)
    if as_json:
        print_json(result)
    else:
        print_result(result)
    is_good = result["verdict"] == "ready" and not (strict and result["report"]["counts"])
    raise typer.Exit(0 if is_good else 1)
