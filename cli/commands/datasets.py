"""`preftune datasets check`: a file checked on this machine, without a running service."""

from typing import Annotated

import typer

from preftune.cli.commands.datasets import (
    Column,
    DataFile,
    Format,
    Ignore,
    Kind,
    OnError,
    Split,
    Ties,
    Value,
    reading_options,
)
from preftune.cli.dataset_report import print_json, print_result
from preftune.cli.extras import from_extra


def check(
    file: DataFile,
    kind: Kind = "preference",
    format: Format = "auto",
    column: Column = None,
    value: Value = None,
    ignore: Ignore = None,
    ties: Ties = "keep",
    split: Split = None,
    on_error: OnError = "reject",
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Fail the check also if there are warnings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as one JSON object.")] = False,
) -> None:
    """Check a file on this machine, as an upload would. Exit code 0: ready; 1: rejected; 2: wrong usage."""
    asked = reading_options(format, column, value, ignore, ties, split) | {"kind": kind, "on_error": on_error}
    result = from_extra("cli.dataset_check", "check_locally")(file, asked)
    if as_json:
        print_json(result)
    else:
        print_result(result)
    is_good = result["verdict"] == "ready" and not (strict and result["report"]["counts"])
    raise typer.Exit(0 if is_good else 1)
