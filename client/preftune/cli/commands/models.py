"""Commands `preftune models …` that ask the service, and `preftune variants`; `models pull` belongs to the service."""

from typing import Final

import typer

from preftune.cli.console import connected
from preftune.cli.groups import Group
from preftune.cli.listing import Column, Item, named, print_list
from preftune.cli.options import AsJson, Limit, Quiet, Url

app = typer.Typer(help="List and fetch base models; list tuned policies.", no_args_is_help=True, cls=Group)
_UNITS: Final = ((1e9, " B"), (1e6, " M"), (1e3, " k"))


def parameters_text(number: int | None) -> str:
    """Return a number of weights to three digits: `260 k`, `135 M`, `1.71 B`."""
    if number is None:
        return ""
    for size, unit in _UNITS:
        if number >= size:
            return f"{float(f'{number / size:.3g}'):g}{unit}"
    return str(number)


_COLUMNS: Final = (
    named("name", is_whole=True),
    named("kind"),
    named("job_name", "job", may_go=True),
    Column(title="parameters", value=lambda model: parameters_text(model["num_parameters"]), is_number=True),
    named("context_length", "context", is_number=True, may_go=True),
    named("architecture", may_go=True),
    named("source", may_go=True),
)


@app.command("list")
def list_models(limit: Limit = 100, as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """List the models that a job can start from: base models, then tuned policies by their job's id."""
    with connected(url) as client:
        found: list[Item] = client.models(limit=limit + 1)
    print_list(
        found[:limit],
        _COLUMNS,
        as_json=as_json,
        quiet=quiet,
        has_more=len(found) > limit,
        id_name="name",
        nothing="No models. Fetch one where the service runs: preftune models pull smollm2-135m-instruct",
    )


_VARIANT_COLUMNS: Final = (
    named("name", is_whole=True),
    named("title"),
    named("default_beta", "default beta", is_number=True),
    named("data"),
    named("choose_when", "choose it when"),
)


def variants(as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """List the variants, that is the preference losses that a job can train with."""
    with connected(url) as client:
        found = client.variants()
    print_list(found, _VARIANT_COLUMNS, as_json=as_json, quiet=quiet, id_name="name")
