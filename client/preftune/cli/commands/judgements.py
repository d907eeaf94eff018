"""Commands `preftune judge …`."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from preftune import Client
from preftune.cli.console import confirm, connected, err, fail, for_each, out, print_status, read_request
from preftune.cli.listing import Column, Item, collect, named, print_json_lines, print_list, print_one, time_column
from preftune.cli.options import AsJson, DatasetId, Limit, Quiet, Url, Yes
from preftune.cli.patience import follow
from preftune.cli.words import counted

JudgementId = Annotated[str, typer.Argument(metavar="JUDGEMENT", help="A judgement's id: judge_…")]
JudgementIds = Annotated[list[str], typer.Argument(metavar="JUDGEMENT", help="Ids of judgements: judge_…")]
JudgeSettings = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A setting of the judge: pattern='^Yes', job_id=job_…. Repeatable."),
]
app = typer.Typer(help="Have pairs of answers judged: win rates, and preference datasets.", no_args_is_help=True)


@app.command()
def start(
    dataset: DatasetId,
    kind: Annotated[
        str | None,
        typer.Option(help="Who judges: length, regex, exact_match, json_schema, reward, arena or model (the default)."),
    ] = None,
    setting: JudgeSettings = None,
    models: Annotated[str | None, typer.Option(metavar="A,B", help="The two models that are compared.")] = None,
    num_pairs: Annotated[int | None, typer.Option(help="How many pairs are drawn at most.")] = None,
    request: Annotated[
        Path | None, typer.Option(help="A JSON file with other fields of POST /judgements: judge, seed, metadata, …")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name to recognise it by.")] = None,
    follow: Annotated[bool, typer.Option("--watch", help="Watch it until it ends.")] = False,
    url: Url = None,
) -> None:
    """Start a judgement of responses or pairs and print its id. What is given here goes before --request."""
    given: dict[str, Any] = read_request(request, "judge")
    given["judge"] = judge_of(given.get("judge", {}), kind, judge_settings(setting))
    own = {"models": models.split(",") if models else None, "num_pairs": num_pairs, "name": name}
    given |= {key: value for key, value in own.items() if value is not None}
    with connected(url, rest="--request") as client:
        made = client.judgements.create(dataset_id=dataset, **given)
        out.print(made["id"])
        if follow:
            _watch(client, made["id"])


@app.command()
def show(judgement: JudgementId, as_json: AsJson = False, url: Url = None) -> None:
    """Show the win rate of a judgement, with its interval, what failed, and its dataset."""
    with connected(url) as client:
        found = client.judgements.get(judgement)
    print_one(found, _print, as_json=as_json)


_COLUMNS: Final = (
    named("id", is_whole=True),
    named("status"),
    Column(title="judge", value=lambda item: item["requested"]["judge"]["kind"]),
    Column(title="judged", value=lambda item: f"{item['num_judged']}/{item['num_pairs']}", is_whole=True),
    Column(title="win rate", value=lambda item: share(item["win_rate"]), is_whole=True),
    named("dataset_id", "dataset", is_whole=True),
    named("name", may_go=True),
    time_column("created_at", "created", may_go=True),
)


@app.command("list")
def list_judgements(limit: Limit = 100, as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """List judgements, the newest first."""
    with connected(url) as client:
        found, has_more = collect(client.judgements.list, limit)
    print_list(found, _COLUMNS, as_json=as_json, quiet=quiet, has_more=has_more, nothing="No judgements.")


@app.command()
def agreement(judgement: JudgementId, against: JudgementId, as_json: AsJson = False, url: Url = None) -> None:
    """Show how often two judgements say the same of the same pairs."""
    with connected(url) as client:
        found = client.judgements.agreement(judgement, against=against)
    if as_json:
        print_json_lines([found])
        return
    kappa = "" if found["kappa"] is None else f", kappa {found['kappa']:.2f}"
    out.print(f"{share(found)} of {counted(found['num_pairs'], 'pair')}{kappa}", markup=False)


@app.command()
def watch(judgement: JudgementId, url: Url = None) -> None:
    """Print how far a judgement is until it has ended."""
    with connected(url) as client:
        _watch(client, judgement)


@app.command()
def cancel(judgements: JudgementIds, url: Url = None) -> None:
    """Cancel judgements; verdicts that are there stay."""
    with connected(url) as client:
        for_each(judgements, lambda one: print_status(client.judgements.cancel(one)))


@app.command()
def delete(judgements: JudgementIds, yes: Yes = False, url: Url = None) -> None:
    """Delete judgements that have ended, with their pairs; their datasets stay. Asks first in a terminal."""
    what = judgements[0] if len(judgements) == 1 else counted(len(judgements), "judgement")
    confirm(f"Delete {what}? The datasets stay.", yes)
    with connected(url) as client:
        for_each(judgements, client.judgements.delete)


def _watch(client: Client, judgement_id: str) -> None:
    _print(follow(lambda: client.judgements.get(judgement_id), _progress))


def _progress(judgement: Item) -> str:
    failed = f", {judgement['num_failed']} without a verdict" if judgement["num_failed"] else ""
    return f"{judgement['num_judged']} of {counted(judgement['num_pairs'], 'pair')}{failed}"


def _print(judgement: Item) -> None:
    out.print(f"{judgement['id']} {judgement['status']}: {_progress(judgement)}", markup=False)
    if judgement["win_rate"]:
        first, second = judgement["models"]
        told = f"{share(judgement['win_rate'])}, length-controlled {share(judgement['length_controlled'])}"
        out.print(f"{first} against {second}: {told}", markup=False)
    if judgement["label_agreement"]:
        out.print(f"agreement with the file: {share(judgement['label_agreement'])}", markup=False)
    if judgement["position"] and judgement["position"]["num_pairs"]:
        position = judgement["position"]
        told = f"{position['num_consistent']} of {position['num_pairs']} alike in both orders"
        out.print(f"{told}, {100 * position['first_shown_share']:.0f} % for the answer shown first", markup=False)
    if judgement["dataset_id"]:
        out.print(f"dataset {judgement['dataset_id']}", markup=False)
    if judgement["faults"]:
        err.print(", ".join(f"{number} {fault}" for fault, number in judgement["faults"].items()), markup=False)
    if judgement["error"]:
        err.print(judgement["error"], markup=False, soft_wrap=True)


def share(rate: Item | None) -> str:
    """Return a share with its interval, in per cent."""
    return "" if rate is None else f"{100 * rate['value']:.1f} % ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})"


def judge_of(requested: Item, kind: str | None, settings: Item) -> Item:
    """Return the judge of a request, with what options say of it instead; a language model where nothing is said."""
    return {"kind": "model", **requested, **({} if kind is None else {"kind": kind}), **settings}


def judge_settings(texts: list[str] | None) -> Item:
    """Parse a judge's settings, each `name=value`; numbers and objects are JSON, anything else is a text."""
    return dict(map(_judge_setting, texts or ()))


def _judge_setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        fail("--setting takes a name and a value, such as pattern='^Yes'", code=2)
    if name not in ("json_schema", "max_requests"):
        return name, value
    try:
        return name, json.loads(value)
    except ValueError as error:
        fail(f"--setting {name} cannot be read as JSON ({error})", code=2)
