"""Commands `preftune models …` that ask the service; `pull` belongs to the service."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from preftune.cli.console import connected, out
from preftune.cli.groups import Group

app = typer.Typer(help="Base models and tuned policies.", no_args_is_help=True, cls=Group)
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
