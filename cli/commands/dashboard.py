"""`preftune open`: the dashboard in the browser, signed in by a one-time link."""

import time
import webbrowser
from typing import Annotated, Any

import typer

from cli.options import DataDir
from cli.service_backend import load, require_data
from preftune.cli.console import err, fail, out
from preftune.cli.extras import from_extra


def open_dashboard(
    url: Annotated[
        str | None, typer.Option(help="Address of the service; default: from PREFTUNE_HOST and PREFTUNE_PORT.")
    ] = None,
    data_dir: DataDir = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print the link and open nothing.")] = False,
) -> None:
    """Open the dashboard, signed in. Run it on the service's machine, with its settings and data directory."""
    settings = load(data_dir=data_dir)
    if settings.api_key is None:
        require_data(settings)
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
