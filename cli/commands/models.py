"""Commands `preftune models …`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.console import connected, fail, out
from cli.extras import from_extra

app = typer.Typer(help="Base models and tuned policies.", no_args_is_help=True)
Url = Annotated[str | None, typer.Option(help="The service; default PREFTUNE_URL or this machine.")]


@app.command("list")
def list_models(url: Url = None) -> None:
    """List the models that a job can start from."""
    with connected(url) as client:
        models = client.models()
    table = Table("name", "kind", "architecture", "parameters", "context", "source", box=None)
    for model in models:
        parameters = "" if model["num_parameters"] is None else f"{model['num_parameters'] / 1e6:,.0f} M"
        cells = (model["kind"], model["architecture"], parameters, model["context_length"], model["source"])
        table.add_row(Text(model["name"]), *(Text("" if cell is None else str(cell)) for cell in cells))
    out.print(table)


@app.command()
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
