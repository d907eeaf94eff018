"""Commands `preftune feedback …`."""

from typing import Annotated, Any, Final

import typer

from preftune.cli.console import confirm, connected, err, fail, for_each, out
from preftune.cli.listing import Column, Item, collect, named, print_list, time_column
from preftune.cli.options import AsJson, Limit, Quiet, Url, Yes
from preftune.cli.words import counted

ARGUMENTS: Final = {
    "answer_id": "ANSWER",
    "thumb": "--thumb",
    "edit": "--edit",
    "better_than": "--better-than",
    "comment": "--comment",
    "giver": "--giver",
    "kind": "--kind",
}
app = typer.Typer(help="Say what people think of served answers, and make a dataset of it.", no_args_is_help=True)


@app.command()
def give(
    answer: Annotated[str, typer.Argument(metavar="ANSWER", help="Id of a served answer: chatcmpl_… or chatcmpl_…-1.")],
    thumb: Annotated[str | None, typer.Option(help="Good or bad: up or down.")] = None,
    edit: Annotated[str | None, typer.Option(help="The answer as it should have been.")] = None,
    better_than: Annotated[str | None, typer.Option(help="Id of a worse answer to the same prompt.")] = None,
    comment: Annotated[str | None, typer.Option(help="Why, in words.")] = None,
    giver: Annotated[str | None, typer.Option(help="Who says so, where many share a key.")] = None,
    *,
    url: Url = None,
) -> None:
    """Say what somebody thinks of a served answer: a thumb, an edit, or that it is better than another one."""
    given: dict[str, Any] = {"edit": edit, "better_than": better_than}
    more = {name: value for name, value in (("comment", comment), ("giver", giver)) if value is not None}
    if (thumb is not None) + sum(value is not None for value in given.values()) != 1:
        fail("give exactly one of --thumb, --edit and --better-than", code=2)
    if thumb not in (None, "up", "down"):
        fail(f"--thumb: must be up or down, not {thumb!r}", code=2)
    with connected(url, arguments=ARGUMENTS) as client:
        if thumb is not None:
            made = client.feedback.thumb(answer, is_good=thumb == "up", **more)
        elif edit is not None:
            made = client.feedback.edit(answer, edit, **more)
        else:
            made = client.feedback.prefer(answer, str(better_than), **more)
    out.print(made["id"], markup=False)


def _said(answer: Item) -> str:
    return ", ".join(item["thumb"] or item["kind"] for item in answer["feedback"])


def _question(answer: Item) -> str:
    prompt = answer["prompt"]
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


_COLUMNS: Final = (
    named("id", is_whole=True),
    named("model"),
    Column(title="feedback", value=_said),
    Column(title="prompt", value=_question),
    named("answer"),
    time_column("created_at", "served (UTC)", may_go=True),
)


@app.command("answers")
def list_answers(limit: Limit = 100, as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """List the answers that are kept, with what was said of them, the newest first."""
    with connected(url) as client:
        found, has_more = collect(client.feedback.answers, limit)
    print_list(found, _COLUMNS, as_json=as_json, quiet=quiet, has_more=has_more, nothing="No answers are kept.")


@app.command()
def delete(
    answers: Annotated[list[str] | None, typer.Argument(metavar="ANSWER", help="Ids of kept answers.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Delete all kept answers of the project.")] = False,
    yes: Yes = False,
    url: Url = None,
) -> None:
    """Delete kept answers with all feedback on them; datasets stay. Asks first in a terminal."""
    if every is bool(answers):
        fail("name answers, or give --all", code=2)
    what = "all kept answers" if every else counted(len(answers or ()), "answer")
    confirm(f"Delete {what} with all feedback?", yes)
    with connected(url) as client:
        if every:
            client.feedback.delete_all()
        else:
            for_each(answers or [], client.feedback.delete)


@app.command()
def dataset(
    kind: Annotated[
        str, typer.Option(help="preference: edits and preferences, as pairs; unpaired: thumbs, for kto.")
    ] = "preference",
    url: Url = None,
) -> None:
    """Make the feedback so far a version of the project's dataset, and print its id."""
    with connected(url, arguments=ARGUMENTS) as client:
        made = client.feedback.dataset(kind)
    err.print(counted(made["num_accepted"], "row"), markup=False)
    out.print(made["id"], markup=False)
