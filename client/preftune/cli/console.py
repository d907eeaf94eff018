"""Output of the command line, and its failures: one sentence, exit code 1, no traceback."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import typer
from rich.console import Console

from preftune import Client, PreftuneError

TEMPLATE_KWARGS: Final = ("--chat-template-kwargs", '{"enable_thinking": false}')
"""The option, and an example of its value."""
PIPED_COLUMNS: Final = 500
"""Width where no terminal is: what other programs read is neither broken into lines nor cut."""
out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_COLUMNS)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPED_COLUMNS)


def fail(message: str, code: int = 1) -> NoReturn:
    err.print("error:", style="bold red", end=" ")
    err.print(message, markup=False)
    raise typer.Exit(code)


def json_object(option: str, example: str, text: str | None) -> dict[str, Any] | None:
    """Parse the JSON object that an option was given; exits with code 2 for anything else."""
    try:
        value = json.loads(text) if text else None
    except ValueError:
        value = ()
    if value is not None and not isinstance(value, dict):
        fail(f"{option} takes a JSON object, such as {example}", code=2)
    return value


@contextmanager
def connected(url: str | None) -> Iterator[Client]:
    """Yield a client whose errors become one sentence and exit code 1."""
    with Client(url) as client:
        try:
            yield client
        except PreftuneError as error:
            fail(str(error))
