"""Options that several commands of the service take, worded once."""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(help="The service's data directory: database, objects, queue. Default: PREFTUNE_DATA_DIR, or ./data."),
]
ModelsDir = Annotated[
    Path | None,
    typer.Option(help="Directory of base models, one folder each. Default: PREFTUNE_MODELS_DIR, or ./models."),
]
