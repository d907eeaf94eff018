"""Commands `preftune rounds …`."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from preftune import Client
from preftune.cli.commands.jobs import INTERRUPTED
from preftune.cli.commands.judgements import JudgeSettings, judge_of, judge_settings, share
from preftune.cli.console import confirm, connected, err, for_each, out, print_status, read_request
from preftune.cli.listing import Column, Item, collect, named, print_list, print_one, time_column
from preftune.cli.options import AsJson, BaseModel, DatasetId, Limit, Quiet, Url, Yes
from preftune.cli.patience import follow
from preftune.cli.words import counted

RoundsId = Annotated[str, typer.Argument(metavar="ROUNDS", help="The id of rounds: rounds_…")]
RoundsIds = Annotated[list[str], typer.Argument(metavar="ROUNDS", help="Ids of rounds: rounds_…")]
_ARGUMENTS: Final = {
    "job/base_model": "BASE_MODEL",
    "job/dataset_id": "DATASET",
    "judge/kind": "--kind",
    "num_rounds": "--num-rounds",
    "pairing/kind": "--pairing",
    "file_ratio": "--file-ratio",
}
"""Arguments and options of `create` by the fields of `POST /rounds`."""
app = typer.Typer(help="Train in rounds: answer, judge, pair, train and compare, several times.", no_args_is_help=True)


@app.command()
def create(
    base_model: BaseModel,
    dataset_id: DatasetId,
    kind: Annotated[
        str | None,
        typer.Option(help="Who judges: length, regex, exact_match, json_schema, reward or model (the default)."),
    ] = None,
    setting: JudgeSettings = None,
    num_rounds: Annotated[int | None, typer.Option(help="Rounds at most.")] = None,
    pairing: Annotated[str | None, typer.Option(help="best_worst, all, file, or best (rejection sampling).")] = None,
    file_ratio: Annotated[
        float | None, typer.Option(help="Rows of the file that are mixed in for each row of a round.")
    ] = None,
    request: Annotated[
        Path | None, typer.Option(help="A JSON file with other fields of POST /rounds: job, generation, evaluation, …")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name to recognise them by.")] = None,
    follow: Annotated[bool, typer.Option("--watch", help="Watch them until they end.")] = False,
    url: Url = None,
) -> None:
    """Start rounds on the prompts of a dataset and print their id. What is given here goes before --request."""
    given: dict[str, Any] = read_request(request, "job", "judge", "pairing")
    given["job"] = {**given.get("job", {}), "base_model": base_model, "dataset_id": dataset_id}
    settings = judge_settings(setting)
    given["judge"] = judge_of(given.get("judge", {}), kind, settings)
    if pairing is not None:
        given["pairing"] = {**given.get("pairing", {}), "kind": pairing}
    own = {"num_rounds": num_rounds, "file_ratio": file_ratio, "name": name}
    given |= {key: value for key, value in own.items() if value is not None}
    arguments = {**_ARGUMENTS, **{f"judge/{name}": f"--setting {name}" for name in settings}}
    with connected(url, rest="--request", arguments=arguments) as client:
        made = client.rounds.create(**given)
        out.print(made["id"])
        if follow:
            _watch(client, made["id"])


@app.command()
def show(rounds: RoundsId, as_json: AsJson = False, url: Url = None) -> None:
    """Show each round with its pairs, its win rates and its drift, and what is under way."""
    with connected(url) as client:
        found = client.rounds.get(rounds)
    print_one(found, _print, as_json=as_json)


_COLUMNS: Final = (
    named("id", is_whole=True),
    named("status"),
    Column(title="rounds", value=lambda item: f"{_num_done(item)}/{item['num_rounds']}", is_whole=True),
    Column(title="win rate", value=lambda item: _newest_share(item), is_whole=True),
    named("best_policy", "best", is_whole=True, may_go=True),
    named("name", may_go=True),
    time_column("created_at", "created", may_go=True),
)


@app.command("list")
def list_rounds(limit: Limit = 100, as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """List rounds, the newest first."""
    with connected(url) as client:
        found, has_more = collect(client.rounds.list, limit)
    print_list(found, _COLUMNS, as_json=as_json, quiet=quiet, has_more=has_more, nothing="No rounds.")


@app.command()
def watch(rounds: RoundsId, url: Url = None) -> None:
    """Watch rounds until they end. Exit code 0: finished; 1: failed; 3: cancelled; 130: Ctrl-C; the rounds go on."""
    with connected(url) as client:
        _watch(client, rounds)


@app.command()
def cancel(rounds: RoundsIds, url: Url = None) -> None:
    """Cancel rounds, with what is under way; what they have made stays."""
    with connected(url) as client:
        for_each(rounds, lambda one: print_status(client.rounds.cancel(one)))


@app.command()
def pause(rounds: RoundsIds, url: Url = None) -> None:
    """Pause rounds: a job stops at a checkpoint, and nothing follows."""
    with connected(url) as client:
        for_each(rounds, lambda one: print_status(client.rounds.pause(one)))


@app.command()
def resume(rounds: RoundsIds, url: Url = None) -> None:
    """Resume paused rounds, or failed ones, whose failed stage is done again."""
    with connected(url) as client:
        for_each(rounds, lambda one: print_status(client.rounds.resume(one)))


@app.command()
def extend(
    rounds: RoundsId,
    num_rounds: Annotated[int, typer.Argument(min=1, help="Rounds at most, those that are done among them.")],
    url: Url = None,
) -> None:
    """Allow more rounds; finished ones go on."""
    with connected(url, arguments={"num_rounds": "NUM_ROUNDS"}) as client:
        print_status(client.rounds.extend(rounds, num_rounds))


@app.command()
def delete(rounds: RoundsIds, yes: Yes = False, url: Url = None) -> None:
    """Delete the records of rounds that have ended; their jobs and datasets stay. Asks first in a terminal."""
    what = rounds[0] if len(rounds) == 1 else f"the records of {len(rounds)} rounds"
    confirm(f"Delete {what}? Jobs and datasets stay.", yes)
    with connected(url) as client:
        for_each(rounds, client.rounds.delete)


def _watch(client: Client, rounds_id: str) -> None:
    try:
        ended = follow(lambda: client.rounds.get(rounds_id), _told)
    except KeyboardInterrupt:
        err.print(f"The rounds go on. Watch them again: preftune rounds watch {rounds_id}", markup=False)
        raise typer.Exit(INTERRUPTED) from None
    _print(ended)
    if ended["status"] != "finished":
        raise typer.Exit(3 if ended["status"] == "cancelled" else 1)


def _told(rounds: Item) -> str:
    """Describe what is under way."""
    for step in rounds["steps"]:
        if step["status"] in ("waiting", "running"):
            reason = f": {step['error']}" if step["error"] else ""
            place = f"round {step['round']} of {rounds['num_rounds']}" if step["round"] else "before the first round"
            return f"{place}, {step['stage']}, {step['child_id']}{reason}"
    return f"{counted(_num_done(rounds), 'round')} done"


def _num_done(rounds: Item) -> int:
    return Counter(one["status"] for one in rounds["rounds"])["succeeded"]


def _newest_share(rounds: Item) -> str:
    rates = [one["win_rate_first"] for one in rounds["rounds"] if one["win_rate_first"]]
    return share(rates[-1]) if rates else ""


def _print(rounds: Item) -> None:
    out.print(f"{rounds['id']} {rounds['status']}: {_told(rounds)}", markup=False, soft_wrap=True)
    columns = (
        Column(title="round", value=lambda one: str(one["number"]), is_number=True),
        named("status"),
        Column(title="pairs", value=lambda one: "" if one["num_pairs"] is None else str(one["num_pairs"])),
        Column(title="against the one before", value=lambda one: share(one["win_rate"]), is_whole=True),
        Column(title="against the first", value=lambda one: share(one["win_rate_first"]), is_whole=True),
        Column(title="drift", value=_drift, is_number=True),
        named("policy", is_whole=True),
    )
    print_list(rounds["rounds"], columns, as_json=False, quiet=False, id_name="policy")
    if rounds["stop_reason"]:
        out.print(f"ended: {rounds['stop_reason']}; best: {rounds['best_policy']}", markup=False)
    if rounds["error"]:
        err.print(rounds["error"], markup=False, soft_wrap=True)


def _drift(one: Item) -> str:
    return "" if one["drift"] is None else f"{one['drift']['kl']:.2f} nats"
