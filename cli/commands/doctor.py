"""`preftune doctor`: checks the deployment from this machine, with the settings of its services."""

import itertools
from typing import Annotated, Any

import typer
from rich.text import Text

from cli.options import DataDir, ModelsDir
from cli.service_backend import load, require_data
from preftune.cli.console import err, fail, out
from preftune.cli.extras import from_extra

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


Url = Annotated[
    str | None,
    typer.Option(help="The address that clients use, to check the proxy before it: https://tune.example.org"),
]


def doctor(url: Url = None, data_dir: DataDir = None, models_dir: ModelsDir = None) -> None:
    """Check database, store, broker, clock, disk, base models, keys and device. Exit code 1 if something fails."""
    settings = load(data_dir=data_dir, models_dir=models_dir)
    require_data(settings)
    _show("data-dir", "ok", str(settings.data_dir.resolve()))
    domain_error = from_extra("core.domain.errors", "DomainError")
    try:
        backend = from_extra("core.services.backend", "open_backend")(settings)
    except from_extra("core.settings", "SettingsError") as error:
        fail(str(error), code=2)
    except domain_error as error:
        fail(error.detail)
    found = from_extra("core.services.operations.diagnosis", "diagnose")(backend)
    if url is not None:
        way_in = from_extra("core.services.operations.way_in", "check_way_in")
        found = itertools.chain(found, way_in(url, settings.max_upload_bytes))
    num_failed = 0
    try:
        for finding in found:
            num_failed += finding.state == "failed"
            _show(finding.name, finding.state, finding.detail)
    finally:
        backend.close()
    num_failed += not _check_device(settings)
    if num_failed:
        err.print(f"{num_failed} of these failed", style="bold red")
        raise typer.Exit(1)


def _check_device(settings: Any) -> bool:
    try:
        device = from_extra("worker.device", "choose_devices")(settings.device, settings.num_devices)
    except from_extra("core.settings", "SettingsError") as error:
        _show("device", "failed", str(error))
        return False
    _show("device", "ok", device.label)
    return True


def _show(name: str, state: str, detail: str) -> None:
    out.print(Text(f"{name:<12}"), Text(f"{state:<8}", _STYLES[state]), Text(detail), soft_wrap=True)
