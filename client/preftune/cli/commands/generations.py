"""Commands `preftune generate …`."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from preftune import Client
from preftune.cli.console import confirm, connected, err, for_each, json_object, out, print_status, read_request
from preftune.cli.listing import Column, Item, collect, named, print_list, print_one, time_column
from preftune.cli.options import AsJson, Limit, Quiet, Url, Yes
from preftune.cli.patience import follow
from preftune.cli.words import counted

GenerationId = Annotated[str, typer.Argument(metavar="GENERATION", help="A generation's id: gen_…")]
GenerationIds = Annotated[list[str], typer.Argument(metavar="GENERATION", help="Ids of generations: gen_…")]
app = typer.Typer(help="Have models answer prompts; the answers are a dataset of responses.", no_args_is_help=True)


@app.command()
def start(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Base models, job_…, job_…@CHECKPOINT, ft:…")],
    dataset: Annotated[str | None, typer.Option(help="Dataset whose prompts are answered: ds_…")] = None,
    held_out_of: Annotated[str | None, typer.Option(help="Job whose held-out prompts are answered: job_…")] = None,
    num_prompts: Annotated[int | None, typer.Option(help="How many prompts are drawn at most.")] = None,
    num_samples: Annotated[int | None, typer.Option(help="Answers of each model to each prompt.")] = None,
    sampling: Annotated[
        str | None, typer.Option(metavar="JSON", help='How models answer: {"max_tokens": 256, "seed": 0}')
    ] = None,
    request: Annotated[
        Path | None, typer.Option(help="A JSON file with other fields of POST /generations: prompts, metadata, …")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name to recognise it by.")] = None,
    follow: Annotated[bool, typer.Option("--watch", help="Watch it until it ends.")] = False,
    url: Url = None,
) -> None:
    """Start a generation and print its id."""
    given: dict[str, Any] = read_request(request)
    own = {
        "dataset_id": dataset,
        "held_out_of": held_out_of,
        "num_prompts": num_prompts,
        "num_samples": num_samples,
        "sampling": json_object("--sampling", '{"max_tokens": 256, "seed": 0}', sampling),
        "name": name,
    }
    given |= {key: value for key, value in own.items() if value is not None}
    with connected(url, rest="--request") as client:
        made = client.generations.create(models=models, **given)
        out.print(made["id"])
        if follow:
            _watch(client, made["id"])


@app.command()
def show(generation: GenerationId, as_json: AsJson = False, url: Url = None) -> None:
    """Show how far a generation is, what failed, and its dataset."""
    with connected(url) as client:
        found = client.generations.get(generation)
    print_one(found, _print, as_json=as_json)


_COLUMNS: Final = (
    named("id", is_whole=True),
    named("status"),
    Column(title="done", value=lambda item: f"{item['num_done']}/{item['num_answers']}", is_whole=True),
    named("dataset_id", "dataset", is_whole=True),
    named("name", may_go=True),
    time_column("created_at", "created", may_go=True),
)


@app.command("list")
def list_generations(limit: Limit = 100, as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """List generations, the newest first."""
    with connected(url) as client:
        found, has_more = collect(client.generations.list, limit)
    print_list(found, _COLUMNS, as_json=as_json, quiet=quiet, has_more=has_more, nothing="No generations.")


@app.command()
def watch(generation: GenerationId, url: Url = None) -> None:
    """Print how far a generation is until it has ended."""
    with connected(url) as client:
        _watch(client, generation)


@app.command()
def cancel(generations: GenerationIds, url: Url = None) -> None:
    """Cancel generations; what they have answered is dropped."""
    with connected(url) as client:
        for_each(generations, lambda one: print_status(client.generations.cancel(one)))


@app.command()
def delete(generations: GenerationIds, yes: Yes = False, url: Url = None) -> None:
    """Delete the records of generations that have ended; their datasets stay. Asks first in a terminal."""
    what = generations[0] if len(generations) == 1 else counted(len(generations), "generation")
    confirm(f"Delete {what}? The datasets stay.", yes)
    with connected(url) as client:
        for_each(generations, client.generations.delete)


def _watch(client: Client, generation_id: str) -> None:
    _print(follow(lambda: client.generations.get(generation_id), _progress))


def _progress(generation: Item) -> str:
    failed = f", {generation['num_failed']} of them failed" if generation["num_failed"] else ""
    return f"{generation['num_done']} of {counted(generation['num_answers'], 'answer')}{failed}"


def _print(generation: Item) -> None:
    out.print(f"{generation['id']} {generation['status']}: {_progress(generation)}", markup=False)
    if generation["dataset_id"]:
        out.print(f"dataset {generation['dataset_id']}", markup=False)
    if generation["error"]:
        err.print(generation["error"], markup=False, soft_wrap=True)
    for failure in generation["failures"]:
        told = f"prompt {failure['prompt']}, {failure['model']}: {failure['detail']}"
        err.print(told, markup=False, soft_wrap=True)
