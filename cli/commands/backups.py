"""Commands `preftune backup` and `preftune restore`, run where the service's settings are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from cli.data_lock import DataDirLock
from cli.options import DataDir
from cli.service_backend import operating
from preftune.cli.console import err, fail, out
from preftune.cli.extras import from_extra
from preftune.cli.options import SERVICE
from preftune.cli.words import counted

_BACKUPS = "core.services.operations.backups"
Folder = Annotated[Path, typer.Argument(help="Folder of backups; an empty or new one for the first.")]


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=SERVICE)(backup)
    app.command(rich_help_panel=SERVICE)(restore)


def backup(
    folder: Folder,
    keep: Annotated[int, typer.Option(min=1, help="How many backups to keep, the newest.")] = 7,
    reread: Annotated[
        bool, typer.Option("--reread", help="Read what earlier backups hold, and copy what is damaged there again.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Back up database, objects and base models while the service runs; what an earlier backup has is not copied.

    Exit code 1 also if the store had lost objects; the backup then has all others.
    """
    back_up: Callable[..., Any] = from_extra(f"{_BACKUPS}.backup", "back_up")
    copied: Any = None

    def note(progress: Any) -> None:
        nonlocal copied
        copied = progress
        status.update(
            f"{counted(progress.num_objects, 'object')}, {progress.num_copied:,} of them copied", spinner="line"
        )

    def warn(text: str) -> None:
        err.print(f"warning: {text}", markup=False)

    with operating(data_dir) as backend, _told(folder), err.status("copying the database") as status:
        manifest = back_up(backend, folder, keep=keep, rereads=reread, tell=note, warn=warn)
    new = f"{copied.num_copied:,} of them new ({copied.num_bytes / 1e6:,.1f} MB)" if copied else "none of them new"
    out.print(
        f"{manifest.id}: the database and {counted(manifest.num_objects, 'object')}, {new}, in {folder}", markup=False
    )
    for key in manifest.lost:
        out.print(f"lost before: {key}", markup=False)
    if manifest.lost:
        lost = counted(len(manifest.lost), "object")
        fail(f"the store had lost {lost} before; `preftune objects check` names their owners")


def restore(
    folder: Folder,
    name: Annotated[str | None, typer.Option("--backup", help="Name of the backup; default: the newest.")] = None,
    only_verify: Annotated[
        bool, typer.Option("--verify", help="Read and verify every byte of the backup; restore nothing.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Restore a backup into an empty database and an empty store, while no service runs on them.

    Jobs that ran continue from their last checkpoint. Keys that were revoked since the backup work again.
    """
    choose: Callable[..., Any] = from_extra(f"{_BACKUPS}.restore", "choose")
    check: Callable[..., Any] = from_extra(f"{_BACKUPS}.restore", "check")
    put_back: Callable[..., Any] = from_extra(f"{_BACKUPS}.restore", "restore")
    with _told(folder):
        repository, manifest = choose(folder, name)
        if only_verify:
            _verify(check, repository, manifest)
            return
        with operating(data_dir, needs_schema=False) as backend, _locked(backend.settings.data_dir):
            put_back(backend, repository, manifest)
    out.print(f"restored {manifest.id}: the database and {counted(manifest.num_objects, 'object')}", markup=False)
    out.print("API keys that were revoked since work again; see `preftune keys list`, and revoke them.")
    for key in manifest.lost:
        out.print(f"not in the backup, as the store had lost it: {key}", markup=False)


def _verify(check: Callable[..., Any], repository: Any, manifest: Any) -> None:
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("", total=manifest.num_bytes + sum(table.num_bytes for table in manifest.tables))
        check(repository, manifest, lambda num_bytes: progress.advance(task, num_bytes))
    out.print(f"{manifest.id} is whole: the database and {counted(manifest.num_objects, 'object')}", markup=False)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Report in one line why there is no backup, or none can be restored."""
    backup_error = from_extra(f"{_BACKUPS}.repository", "BackupError")
    try:
        yield
    except backup_error as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or folder}: {error.strerror}; earlier backups are as they were")


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Keep `preftune serve` off the data directory meanwhile."""
    lock = DataDirLock.take(data_dir, 0)
    if lock is None:
        fail(f"a service uses {data_dir}; stop it first")
    try:
        yield
    finally:
        lock.release()
