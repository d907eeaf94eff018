"""`preftune doctor`: checks the deployment from this machine, with the settings of its services."""

import itertools
from typing import Annotated

import typer
from rich.text import Text

from preftune.cli.console import err, fail, out
from preftune.cli.extras import from_extra

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


Url = Annotated[
    str | None,
    typer.Option(help="The address that clients use, to check the proxy before it: https://tune.example.org"),
]


def doctor(url: Url = None) -> None:
    """Check database, store, broker, clock, disk, base models, keys and device; exit code 1 if something fails."""
    settings_error = from_extra("core.settings", "SettingsError")
    try:
        settings = from_extra("core.settings", "load_settings")()
        backend = from_extra("core.services.backend", "open_backend")(settings)
    except settings_error as error:
        fail(str(error), code=2)
    num_failed = 0
    found = from_extra("core.services.operations.diagnosis", "diagnose")(backend)
    if url is not None:
        way_in = from_extra("core.services.operations.way_in", "check_way_in")
        found = itertools.chain(found, way_in(url, settings.max_upload_bytes))
    try:
        for finding in found:
            num_failed += finding.state == "failed"
            _show(finding.name, finding.state, finding.detail)
    finally:
        backend.close()
    try:
        device = from_extra("worker.device", "choose_devices")(settings.device, settings.num_devices)
        _show("device", "ok", device.label)
    except settings_error as error:
        num_failed += 1
        _show("device", "failed", str(error))
    if num_failed:
        err.print(f"{num_failed} of these failed", style="bold red")
        raise typer.Exit(1)


def _show(name: str, state: str, detail: str) -> None:
    out.print(Text(f"{name:<12}"), Text(f"{state:<8}", _STYLES[state]), Text(detail), soft_wrap=True)
