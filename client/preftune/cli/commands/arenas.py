"""Commands `preftune arenas …`."""

from functools import partial
from typing import Annotated, Any, Final

import typer

from preftune import Client
from preftune.cli.console import confirm, connected, err, fail, for_each, out
from preftune.cli.listing import Column, Item, collect, named, print_json_lines, print_list, time_column
from preftune.cli.options import AsJson, Limit, Quiet, Url, Yes
from preftune.cli.words import counted

ArenaId = Annotated[str, typer.Argument(metavar="ARENA", help="An arena's id: arena_…")]
ArenaIds = Annotated[list[str], typer.Argument(metavar="ARENA", help="Ids of arenas: arena_…")]
Voter = Annotated[str | None, typer.Option(help="Who votes, where several people share a key.")]
VERDICTS: Final = {"l": "left", "r": "right", "t": "tie", "b": "both_bad"}
CREATE_ARGUMENTS: Final = {"models": "--model", "dataset_id": "--dataset", "num_pairs": "--pairs"}

app = typer.Typer(help="Judge blind pairs of answers, and make a dataset of the votes.", no_args_is_help=True)


@app.command()
def create(
    model: Annotated[
        list[str] | None, typer.Option(help="A model that answers; give two, or none to judge the dataset's rows.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Where prompts, or rows, are drawn from: ds_…")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt instead of a dataset; repeatable.")] = None,
    pairs: Annotated[int | None, typer.Option(help="Number of pairs at most.")] = None,
    votes_per_pair: Annotated[int | None, typer.Option(help="Votes that each pair gets; default: 1.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.")] = None,
    *,
    name: Annotated[str | None, typer.Option(help="A name to recognise the arena by.")] = None,
    url: Url = None,
) -> None:
    """Make an arena of two models and prompts, or of the rows of a dataset, and print its id."""
    prompts = [[{"role": "user", "content": text}] for text in prompt or ()]
    wanted: dict[str, Any] = {
        "models": model or None,
        "dataset_id": dataset,
        "prompts": prompts or None,
        "num_pairs": pairs,
        "votes_per_pair": votes_per_pair,
        "sampling": None if max_tokens is None else {"max_tokens": max_tokens},
        "name": name,
    }
    with connected(url, arguments=CREATE_ARGUMENTS) as client:
        arena = client.arenas.create(**{key: value for key, value in wanted.items() if value is not None})
    err.print(counted(arena["num_pairs"], "pair"), markup=False)
    out.print(arena["id"], markup=False)


def _leader(arena: Item) -> str:
    best = arena["standing"][0]
    return _rate(best) if arena["num_votes"] else ""


_COLUMNS: Final = (
    named("id", is_whole=True),
    named("name"),
    Column(title="judged", value=lambda arena: f"{arena['num_decided']} of {arena['num_pairs']}"),
    Column(title="better so far", value=_leader),
    Column(title="state", value=lambda arena: "open" if arena["is_open"] else "closed"),
    time_column("created_at", "created (UTC)", may_go=True),
)


@app.command("list")
def list_arenas(limit: Limit = 100, as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """List arenas, the newest first."""
    with connected(url) as client:
        found, has_more = collect(client.arenas.list, limit)
    print_list(found, _COLUMNS, as_json=as_json, quiet=quiet, has_more=has_more, nothing="No arenas.")


@app.command()
def show(arena: ArenaId, as_json: AsJson = False, url: Url = None) -> None:
    """Show the standing of an arena, with the intervals of 95 %."""
    with connected(url) as client:
        found = client.arenas.get(arena)
    if as_json:
        print_json_lines([found])
        return
    judged = f"{found['num_decided']} of {counted(found['num_pairs'], 'pair')} judged"
    votes = f"{counted(found['num_votes'], 'vote')} of {counted(found['num_voters'], 'voter')}"
    out.print(f"{judged}, {votes}", markup=False)
    for item in found["standing"]:
        out.print(_rate(item), markup=False, soft_wrap=True)
    out.print(f"ties {found['num_ties']}, both bad {found['num_both_bad']}", markup=False)


@app.command()
def vote(arena: ArenaId, voter: Voter = None, url: Url = None) -> None:
    """Judge pairs one after the other: l, r, t for a tie, b for both bad; an empty line ends."""
    with connected(url) as client:
        while pairs := client.arenas.pairs(arena, voter=voter):
            if not _judge(client, arena, pairs[0], voter):
                return
    err.print("Nothing is left to judge.")


_VOTES: Final = (
    named("id", is_whole=True),
    named("pair_id", "pair", is_whole=True, may_go=True),
    named("voter"),
    named("verdict"),
    Column(title="better", value=lambda item: item["winner"] or "neither"),
    named("comment"),
    time_column("created_at", "when (UTC)", may_go=True),
)


@app.command()
def votes(arena: ArenaId, limit: Limit = 100, as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """List the votes of an arena, the newest first."""
    with connected(url) as client:
        found, has_more = collect(partial(client.arenas.votes, arena), limit)
    print_list(found, _VOTES, as_json=as_json, quiet=quiet, has_more=has_more, nothing="No votes.")


@app.command()
def take_back(
    arena: ArenaId,
    votes: Annotated[list[str], typer.Argument(metavar="VOTE", help="Ids of votes: vote_…")],
    url: Url = None,
) -> None:
    """Delete votes; their pairs can be judged again."""
    with connected(url) as client:
        for_each(votes, lambda one: client.arenas.take_back(arena, one))


@app.command()
def dataset(arena: ArenaId, url: Url = None) -> None:
    """Make the votes so far a version of the arena's dataset, and print its id."""
    with connected(url) as client:
        made = client.arenas.dataset(arena)
    err.print(counted(made["num_accepted"], "row"), markup=False)
    out.print(made["id"], markup=False)


@app.command()
def close(arenas: ArenaIds, url: Url = None) -> None:
    """Let nobody vote in arenas any more; the votes stay."""
    with connected(url) as client:
        for_each(arenas, client.arenas.close)


@app.command()
def reopen(arenas: ArenaIds, url: Url = None) -> None:
    """Let people vote in closed arenas again."""
    with connected(url) as client:
        for_each(arenas, client.arenas.reopen)


@app.command()
def delete(arenas: ArenaIds, yes: Yes = False, url: Url = None) -> None:
    """Delete arenas with their votes; datasets that were made of them stay. Asks first in a terminal."""
    confirm(f"Delete {arenas[0] if len(arenas) == 1 else counted(len(arenas), 'arena')} with all votes?", yes)
    with connected(url) as client:
        for_each(arenas, client.arenas.delete)


def _judge(client: Client, arena: str, pair: Item, voter: str | None) -> bool:
    """Show a pair and take its verdict; returns whether one was given."""
    for title, text in (("Prompt", pair["prompt"]), ("Left", pair["left"]), ("Right", pair["right"])):
        out.print(title, style="bold")
        out.print(_plain(text), markup=False, soft_wrap=True)
    try:
        answer = typer.prompt("l, r, t, b", default="", show_default=False).strip().lower()
    except typer.Abort:
        return False
    if not answer:
        return False
    if answer[0] not in VERDICTS:
        fail(f"{answer!r} is no verdict; it must be l, r, t or b", code=2)
    given = client.arenas.vote(arena, pair["id"], VERDICTS[answer[0]], voter=voter)
    err.print(f"left was {given['left']}, right was {given['right']}", markup=False, soft_wrap=True)
    return True


def _plain(text: Any) -> str:
    found = text if isinstance(text, str) else "\n".join(f"{turn['role']}: {turn['content']}" for turn in text)
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in found)


def _rate(item: Item) -> str:
    low, high = (round(100 * item[name]) for name in ("low", "high"))
    return f"{item['model']}: better in {round(100 * item['win_rate'])} % ({low} to {high} %)"
