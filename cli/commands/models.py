"""`preftune models pull`: a base model into this machine's model directory."""

from pathlib import Path
from typing import Annotated

import typer

from preftune.cli.console import fail, out
from preftune.cli.extras import from_extra


def pull(
    model: Annotated[str, typer.Argument(help="A catalogue name, or <organisation>/<name>@<commit> of the hub.")],
    models_dir: Annotated[Path | None, typer.Option(help="Default: PREFTUNE_MODELS_DIR or ./models.")] = None,
) -> None:
    """Fetch a base model into this machine's model directory. Does nothing when it is there."""
    settings = from_extra("core.settings", "load_settings")(models_dir=models_dir)
    error_type = from_extra("core.domain.errors", "DomainError")
    try:
        pulled = from_extra("cli.model_pull", "pull_with_progress")(model, settings.models_dir)
    except error_type as error:
        fail(error.detail)
    out.print(f"{pulled.name}: {pulled.source}", markup=False)
