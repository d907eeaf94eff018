"""Commands `preftune serve | api | worker | migrate`: the service itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from preftune.cli.console import fail
from preftune.cli.extras import WORKER, from_extra

Host = Annotated[str | None, typer.Option(help="Address to listen on; without a key only loopback.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")]
DataDir = Annotated[Path | None, typer.Option(help="Database, objects, queue and scratch space.")]
ModelsDir = Annotated[Path | None, typer.Option(help="Folder of base models, with one folder each.")]


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(api)
    app.command()(worker)
    app.command()(migrate)


def serve(host: Host = None, port: Port = None, data_dir: DataDir = None, models_dir: ModelsDir = None) -> None:
    """Run API and worker together, restarted when they die, until Ctrl-C."""
    _require_trainer()
    settings = _settings(host=host, port=port, data_dir=data_dir, models_dir=models_dir)
    with _told():
        code = from_extra("cli.serve", "run_serve")(settings)
    raise typer.Exit(code)


def api(host: Host = None, port: Port = None, data_dir: DataDir = None, models_dir: ModelsDir = None) -> None:
    """Run the HTTP API alone."""
    settings = _settings(host=host, port=port, data_dir=data_dir, models_dir=models_dir)
    with _told():
        code = from_extra("api.server", "run")(settings)
    raise typer.Exit(code)


def worker(data_dir: DataDir = None, models_dir: ModelsDir = None) -> None:
    """Run one worker alone: it takes one job at a time."""
    _require_trainer()
    settings = _settings(data_dir=data_dir, models_dir=models_dir)
    with _told():
        code = from_extra("worker.app", "run")(settings)
    raise typer.Exit(code)


def migrate() -> None:
    """Update the database to this version's schema; run it once before a new version starts."""
    settings = _settings()
    with _told():
        from_extra("core.database.migrate", "upgrade")(settings.effective_database_url)


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


def _settings(**overrides: Any) -> Any:
    error_type = from_extra("core.settings", "SettingsError")
    try:
        return from_extra("core.settings", "load_settings")(**overrides)
    except error_type as error:
        fail(str(error), code=2)
