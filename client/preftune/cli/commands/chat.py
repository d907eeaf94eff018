"""Command `preftune chat`: ask a model from the command line."""

import sys
from typing import Annotated, Any, Final

import typer

from preftune import Client
from preftune.cli.console import connected, err, fail, out
from preftune.cli.listing import print_json_lines
from preftune.cli.options import WORKING, Url
from preftune.cli.words import printable

MAX_PROMPT_CHARS: Final = 1_000_000
ARGUMENTS: Final = {
    "model": "MODEL",
    "messages": "PROMPT",
    "temperature": "--temperature",
    "top_p": "--top-p",
    "max_tokens": "--max-tokens",
    "seed": "--seed",
    "stop": "--stop",
}


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=WORKING)(chat)


def chat(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A base model, job_…, job_…@sft, or ft:….")],
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask; default: standard input, or a conversation in a terminal.")
    ] = None,
    *,
    system: Annotated[str | None, typer.Option(help="Text of a system message before the conversation.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the most likely token; default: 1.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Share of the probability that tokens are drawn from.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same request and seed give the same answer.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text at which an answer ends; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as the API gives it.")] = False,
    url: Url = None,
) -> None:
    """Ask a base model or a policy, and print its answer while it is written."""
    settings: dict[str, Any] = {
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "seed": seed,
        "stop": stop or None,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    messages = [] if system is None else [{"role": "system", "content": system}]
    with connected(url, arguments=ARGUMENTS) as client:
        if prompt is None and sys.stdin.isatty():
            _converse(client, model, messages, given)
            return
        text = _read() if prompt is None else prompt
        messages.append({"role": "user", "content": text})
        if as_json:
            print_json_lines([client.chat.create(model, messages, **given)])
        else:
            _answer(client, model, messages, given)


def _read() -> str:
    text = sys.stdin.read(MAX_PROMPT_CHARS + 1).strip()
    if not text or len(text) > MAX_PROMPT_CHARS:
        fail(f"standard input must hold a prompt of at most {MAX_PROMPT_CHARS:,} characters", code=2)
    return text


def _converse(client: Client, model: str, messages: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Take turns until the end of the input."""
    err.print("An empty line or Ctrl-D ends the conversation.")
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            text = ""
        if not text:
            return
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": _answer(client, model, messages, settings)})


def _answer(client: Client, model: str, messages: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    """Print an answer as it comes, and return it."""
    pieces = []
    for piece in client.chat.texts(model, messages, **settings):
        pieces.append(piece)
        out.print(printable(piece), markup=False, end="", soft_wrap=True)
    out.print()
    return "".join(pieces)
