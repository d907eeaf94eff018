"""`preftune models pull`: a base model into this machine's model directory."""

from typing import Annotated

import typer

from cli.options import ModelsDir
from cli.service_backend import load
from preftune.cli.console import fail, out
from preftune.cli.extras import from_extra


def pull(
    model: Annotated[str, typer.Argument(help="A catalogue name, or <organisation>/<name>@<commit> of the hub.")],
    models_dir: ModelsDir = None,
) -> None:
    """Fetch a base model into the models directory of this machine. Does nothing if it is there."""
    settings = load(models_dir=models_dir)
    error_type = from_extra("core.domain.errors", "DomainError")
    try:
        pulled = from_extra("cli.model_pull", "pull_with_progress")(model, settings.models_dir)
    except error_type as error:
        fail(error.detail)
    out.print(f"{pulled.name}: {pulled.source}", markup=False)
