"""Commands `preftune serve | api | worker | runner | migrate`: the service itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Annotated

import typer

from cli.options import DataDir, ModelsDir
from cli.service_backend import load
from core.quick_imports import import_quickly
from preftune.cli.console import err, fail
from preftune.cli.extras import WORKER, from_extra
from preftune.cli.options import SERVICE

Host = Annotated[
    str | None,
    typer.Option(help="Address to listen on, default 127.0.0.1; one that others reach needs an API key first."),
]
Port = Annotated[int | None, typer.Option(help="Port to listen on, default 8000; 0 takes a free one.")]


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=SERVICE)(serve)
    app.command(rich_help_panel=SERVICE)(api)
    app.command(rich_help_panel=SERVICE)(worker)
    app.command(rich_help_panel=SERVICE)(runner)
    app.command(rich_help_panel=SERVICE)(migrate)


def serve(host: Host = None, port: Port = None, data_dir: DataDir = None, models_dir: ModelsDir = None) -> None:
    """Run API and worker together until Ctrl-C; each is restarted should it die."""
    _require_trainer()
    settings = load(host=host, port=port, data_dir=data_dir, models_dir=models_dir)
    with _told():
        code = from_extra("cli.serve", "run_serve", load=import_quickly)(settings)
    raise typer.Exit(code)


def api(host: Host = None, port: Port = None, data_dir: DataDir = None, models_dir: ModelsDir = None) -> None:
    """Run the HTTP API alone."""
    settings = load(host=host, port=port, data_dir=data_dir, models_dir=models_dir)
    with _told():
        code = from_extra("api.server", "run", load=import_quickly)(settings)
    raise typer.Exit(code)


def worker(data_dir: DataDir = None, models_dir: ModelsDir = None) -> None:
    """Run one worker alone; it runs one job at a time."""
    _require_trainer()
    settings = load(data_dir=data_dir, models_dir=models_dir)
    with _told():
        code = from_extra("worker.app", "run", load=import_quickly)(settings)
    raise typer.Exit(code)


RunnerHost = Annotated[str, typer.Option(help="Address to listen on; without PREFTUNE_RUNNER_SECRET only loopback.")]
RunnerPort = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)]


def runner(
    host: RunnerHost = "127.0.0.1", port: RunnerPort = 8001, data_dir: DataDir = None, models_dir: ModelsDir = None
) -> None:
    """Run one runner alone: it answers chats for an API that knows it by PREFTUNE_RUNNER_URL."""
    _require_trainer()
    settings = load(data_dir=data_dir, models_dir=models_dir)
    with _told():
        address = from_extra("worker.runner.app", "Address")(host=host, port=port)
        code = from_extra("worker.runner.app", "run_at")(settings, address)
    raise typer.Exit(code)


def migrate(data_dir: DataDir = None) -> None:
    """Update the database to this version's schema. Run it once before a new version starts."""
    settings = load(data_dir=data_dir)
    with _told():
        from_extra("core.database.migrate", "upgrade")(settings.effective_database_url)
    err.print("the database has this version's schema")


def _require_trainer() -> None:
    """Exit where a worker would start, claim jobs and fail them, since its child processes could not."""
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        fail(f"a worker needs packages that are not installed ({', '.join(missing)}): pip install '{WORKER}'")


@contextmanager
def _told() -> Iterator[None]:
    """Report in one line why a service cannot start."""
    settings_error = from_extra("core.settings", "SettingsError")
    domain_error = from_extra("core.domain.errors", "DomainError")
    try:
        yield
    except settings_error as error:
        fail(str(error), code=2)
    except domain_error as error:
        reason = from_extra("core.outages", "reason_of")(error.__cause__) if error.__cause__ else ""
        fail(f"{error.detail} {reason}".rstrip())
