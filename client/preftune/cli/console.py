"""Output of the command line, and its failures: one sentence, exit code 1, no traceback.

Data go to stdout, everything else to stderr.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import typer
from rich.console import Console

from preftune import ApiError, Client, PreftuneError
from preftune.cli.words import error_text

TEMPLATE_KWARGS: Final = ("--chat-template-kwargs", '{"enable_thinking": false}')
"""The option, and an example of its value."""
PIPED_COLUMNS: Final = 500
"""Width where no terminal is: what other programs read is neither broken into lines nor cut."""
out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_COLUMNS)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPED_COLUMNS)


def fail(message: str, code: int = 1) -> NoReturn:
    print_error(message)
    raise typer.Exit(code)


def print_error(message: str) -> None:
    err.print("error:", style="bold red", end=" ")
    err.print(message, markup=False, soft_wrap=True)


def json_object(option: str, example: str, text: str | None) -> dict[str, Any] | None:
    """Parse the JSON object that an option was given; exits with code 2 for anything else."""
    try:
        value = json.loads(text) if text else None
    except ValueError:
        value = ()
    if value is not None and not isinstance(value, dict):
        fail(f"{option} takes a JSON object, such as {example}", code=2)
    return value


def setting(option: str, example: str, text: str) -> tuple[str, Any]:
    """Parse `setting=value` of an option; exits with code 2 for anything else. The value is JSON, or else a text."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        fail(f"{option} takes a setting and its value, such as {example}", code=2)
    return name, json_or_text(value)


def json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_request(path: Path | None, *objects: str) -> dict[str, Any]:
    """Read the JSON file of `--request`, whose fields of these names are objects; exits with code 2 otherwise."""
    if path is None:
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"--request: {path.name} cannot be read as JSON ({error})", code=2)
    if not isinstance(value, dict) or not all(isinstance(value.get(name, {}), dict) for name in objects):
        fail(
            f"--request takes a JSON object{', with an object as its ' + ', '.join(objects) if objects else ''}", code=2
        )
    return value


def print_status(item: Mapping[str, Any]) -> None:
    """Print the id and the status of what a command has changed."""
    out.print(f"{item['id']} {item['status']}", markup=False)


def confirm(question: str, yes: bool) -> None:
    """Ask in a terminal, unless `yes`; exits with code 1 where the answer is no. A script is not asked."""
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)


def for_each(ids: Sequence[str], act: Callable[[str], object]) -> None:
    """Act on every object; exits with code 1 at the end where one was refused."""
    num_refused = 0
    for one in dict.fromkeys(ids):
        try:
            act(one)
        except ApiError as error:
            text = error_text(error)
            print_error(text if one in text else f"{one}: {text}")
            num_refused += 1
    if num_refused:
        raise typer.Exit(1)


@contextmanager
def connected(url: str | None, rest: str | None = None, arguments: Mapping[str, str] | None = None) -> Iterator[Client]:
    """Yield a client whose errors become one sentence and exit code 1; `rest` and `arguments` as in `error_text`."""
    try:
        with Client(url) as client:
            yield client
    except ApiError as error:
        fail(error_text(error, rest, arguments))
    except (PreftuneError, TimeoutError) as error:
        fail(str(error))
    except BrokenPipeError:  # whoever reads our output has enough of it
        raise
    except OSError as error:  # of a file that is read or written
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
