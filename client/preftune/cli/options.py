"""Options that several commands take, worded once."""

from typing import Annotated, Final

import typer

MAX_LIMIT: Final = 10_000
WORKING: Final = "Work with a service"
SERVICE: Final = "Run a service"
"""Headings of `preftune --help`."""

Url = Annotated[
    str | None,
    typer.Option(help="Address of the service, such as http://127.0.0.1:8000. Default: PREFTUNE_URL, or this machine."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON as the API answers: one object a line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only, one a line.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=MAX_LIMIT, help="Print at most this many.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
BaseModel = Annotated[
    str, typer.Argument(metavar="BASE_MODEL", help="A name from `preftune models list`, or a job's id for its policy.")
]
DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset's id: ds_…")]
TemplateKwargs = Annotated[
    str | None,
    typer.Option(metavar="JSON", help='Variables of the chat template as JSON: {"enable_thinking": false}'),
]
