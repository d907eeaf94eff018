"""Commands `preftune objects …`, run where the service's settings are."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import DataDir
from cli.service_backend import operating
from preftune.cli.console import fail, out
from preftune.cli.extras import from_extra
from preftune.cli.words import counted

app = typer.Typer(help="Check the objects of the store.", no_args_is_help=True)
_COPIES = "core.services.operations.backups.folder_of_first_release"
Folder = Annotated[Path, typer.Argument(help="Folder of the copy.")]


@app.command()
def load(folder: Folder, data_dir: DataDir = None) -> None:
    """Restore a folder that `preftune objects save` of version 0.1.0 wrote, into an empty store."""
    load_copy: Callable[[Any, Path], int] = from_extra(_COPIES, "load")
    refused = from_extra(_COPIES, "CopyRefused")
    with operating(data_dir) as backend:
        try:
            num_objects = load_copy(backend.store, folder)
        except refused as error:
            fail(str(error))
        except OSError as error:
            fail(f"{error.filename or folder}: {error.strerror}")
    out.print(f"{counted(num_objects, 'object')} loaded from {folder}", markup=False)


@app.command()
def check(
    quick: Annotated[bool, typer.Option("--quick", help="Compare presence and sizes only, not every byte.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Find objects that the database names and the store has lost. Exit code 1 if there are any."""
    check_all: Callable[..., Any] = from_extra("core.services.operations.object_checks", "check_all")
    num_objects, num_lost = 0, 0
    with operating(data_dir) as backend:
        for count, losses in check_all(backend, is_deep=not quick):
            num_objects += count
            num_lost += len(losses)
            for loss in losses:
                out.print(f"{loss.what}: {loss.key}, of {loss.owner_id}", markup=False)
    out.print(f"{counted(num_objects, 'object')} checked, {num_lost:,} lost", markup=False)
    if num_lost:
        raise typer.Exit(1)
