"""Commands `preftune objects …`, run where the service's settings are; `save` and `load` while it is stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import fail, out
from cli.extras import from_extra
from cli.service_backend import operating

app = typer.Typer(help="The object store as a folder, for backups.", no_args_is_help=True)
_COPIES = "core.services.operations.backup"
Folder = Annotated[Path, typer.Argument(help="Folder of the copy.")]


@app.command()
def save(folder: Folder) -> None:
    """Copy every object into a new folder, with the SHA-256 of each."""
    out.print(f"{_run('save', folder)} objects saved to {folder}", markup=False)


@app.command()
def load(folder: Folder) -> None:
    """Restore a saved folder into an empty store, once every file of it has been checked."""
    out.print(f"{_run('load', folder)} objects loaded from {folder}", markup=False)


@app.command()
def check(
    quick: Annotated[bool, typer.Option("--quick", help="Compare presence and sizes only, not every byte.")] = False,
) -> None:
    """Look for objects that the database names and the store has lost; ends with code 1 if there are any."""
    check_all: Callable[..., Any] = from_extra("core.services.operations.object_checks", "check_all", "api")
    num_objects, num_lost = 0, 0
    with operating() as backend:
        for count, losses in check_all(backend, is_deep=not quick):
            num_objects += count
            num_lost += len(losses)
            for loss in losses:
                out.print(f"{loss.what}: {loss.key}, of {loss.owner_id}", markup=False)
    out.print(f"{num_objects:,} objects are named, {num_lost:,} of them lost", markup=False)
    if num_lost:
        raise typer.Exit(1)


def _run(name: str, folder: Path) -> int:
    copy: Callable[[Any, Path], int] = from_extra(_COPIES, name, "api")
    refused = from_extra(_COPIES, "CopyRefused", "api")
    with operating() as backend:
        try:
            return copy(backend.store, folder)
        except refused as error:
            fail(str(error))
        except OSError as error:
            fail(f"{error.filename or folder}: {error.strerror}")
