"""Output of the command line, and its failures: one sentence, exit code 1, no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console

from preftune import Client, PreftuneError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def fail(message: str, code: int = 1) -> NoReturn:
    err.print("error:", style="bold red", end=" ")
    err.print(message, markup=False)
    raise typer.Exit(code)


@contextmanager
def connected(url: str | None) -> Iterator[Client]:
    """Yield a client whose errors become one sentence and exit code 1."""
    with Client(url) as client:
        try:
            yield client
        except PreftuneError as error:
            fail(str(error))
