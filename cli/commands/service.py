"""`preftune serve | api | worker | migrate`: the service itself."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import fail
from cli.extras import from_extra

Host = Annotated[str | None, typer.Option(help="Address to listen on; without a key only loopback.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")]
DataDir = Annotated[Path | None, typer.Option(help="Database, objects, queue and scratch space.")]
ModelsDir = Annotated[Path | None, typer.Option(help="Base models, a folder each.")]


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(api)
    app.command()(worker)
    app.command()(migrate)


def serve(host: Host = None, port: Port = None, data_dir: DataDir = None, models_dir: ModelsDir = None) -> None:
    """API and worker together, restarted when they die, until Ctrl-C."""
    settings = _settings(host=host, port=port, data_dir=data_dir, models_dir=models_dir)
    raise typer.Exit(from_extra("cli.serve", "run_serve")(settings))


def api(host: Host = None, port: Port = None, data_dir: DataDir = None, models_dir: ModelsDir = None) -> None:
    """The HTTP API alone."""
    settings = _settings(host=host, port=port, data_dir=data_dir, models_dir=models_dir)
    raise typer.Exit(from_extra("api.server", "run", "api")(settings))


def worker(data_dir: DataDir = None, models_dir: ModelsDir = None) -> None:
    """One worker alone: it takes one job at a time."""
    raise typer.Exit(from_extra("worker.app", "run")(_settings(data_dir=data_dir, models_dir=models_dir)))


def migrate() -> None:
    """Bring the database to this version's schema; run it once before a new version starts."""
    settings = _settings()
    from_extra("core.database.migrate", "upgrade", "api")(settings.effective_database_url)


def _settings(**overrides: Any) -> Any:
    error_type = from_extra("core.settings", "SettingsError", "api")
    try:
        return from_extra("core.settings", "load_settings", "api")(**overrides)
    except error_type as error:
        fail(str(error), code=2)
