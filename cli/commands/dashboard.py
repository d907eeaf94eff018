"""`preftune open`: the dashboard in the browser, signed in by a one-time link."""

import time
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from preftune.cli.console import err, fail, out
from preftune.cli.extras import from_extra


def open_dashboard(
    url: Annotated[
        str | None, typer.Option(help="Where the dashboard is; default: PREFTUNE_HOST and PREFTUNE_PORT.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Of the service, where its key file lies.")] = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print the link and open nothing.")] = False,
) -> None:
    """Open the dashboard signed in; run it where the service's settings and data directory are."""
    settings = _settings(data_dir)
    code = from_extra("core.services.access.sign_in_codes", "make")(_key(settings), time.time())
    link = f"{(url or f'http://{settings.host}:{settings.port}').rstrip('/')}/ui/#sign-in={code}"
    if only_print or not webbrowser.open(link):
        err.print("Open this link within ten minutes; it works once:", markup=False)
        out.print(link, markup=False, soft_wrap=True)


def _key(settings: Any) -> str:
    """Return the bootstrap key, or the key file of a service without keys."""
    if settings.api_key is not None:
        return str(settings.bootstrap_keys[0])
    error_type = from_extra("core.settings", "SettingsError")
    try:
        return str(from_extra("core.services.access.secret_files", "local_key")(settings))
    except error_type as error:
        fail(str(error), code=2)


def _settings(data_dir: Path | None) -> Any:
    error_type = from_extra("core.settings", "SettingsError")
    try:
        return from_extra("core.settings", "load_settings")(data_dir=data_dir)
    except error_type as error:
        fail(str(error), code=2)
