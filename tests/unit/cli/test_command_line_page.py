"""The page of the command line names every command with its arguments and options, as `--help` does.

`python tests/unit/cli/test_command_line_page.py` writes the reference.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.main import app

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "command-line.md"
MARK = "<!-- Written by `python tests/unit/cli/test_command_line_page.py`. -->\n"
COMMON = ("--help", "--url", "--data-dir", "--models-dir", "--json", "--quiet", "--limit")
"""Described once, above the reference, where many commands have them with the same words."""
MANY = 3


def commands(command: Any, path: str = "preftune") -> Iterator[tuple[str, Any]]:
    """(what to type, command) of every command that does something."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")
    if not hasattr(command, "commands"):
        yield path, command


@cache
def every_command() -> dict[str, Any]:
    return dict(commands(typer.main.get_command(app)))


def usage(path: str, command: Any) -> str:
    arguments = [
        f"{'' if item.required else '['}{item.metavar or item.name.upper()}{'…' if item.nargs == -1 else ''}"
        f"{'' if item.required else ']'}"
        for item in command.params
        if item.param_type_name == "argument"
    ]
    return " ".join([path, *arguments])


def is_common(option: Any) -> bool:
    """Whether the option is one of `COMMON` in the words that most commands have for it."""
    if option.param_type_name == "argument" or option.opts[0] not in COMMON:
        return False
    every = [other for command in every_command().values() for other in command.params]
    return sum(other.opts == option.opts and other.help == option.help for other in every) >= MANY


def option_rows(command: Any) -> list[tuple[str, str]]:
    rows = []
    for item in command.params:
        if item.param_type_name == "argument":
            rows.append((item.metavar or item.name.upper(), item.help or ""))
        elif not is_common(item) and item.opts[0] != "--help":
            value = "" if item.is_flag else f" {item.metavar or 'VALUE'}"
            default = (
                f" Default: {item.default}." if isinstance(item.default, str | int | float) and item.default else ""
            )
            rows.append((f"{', '.join(item.opts)}{value}", (item.help or "") + (default if not item.is_flag else "")))
    return rows


def section(path: str, command: Any) -> str:
    opts = [item.opts[0] for item in command.params if is_common(item) and item.opts[0] != "--help"]
    lines = [f"### {path}", "", f"`{usage(path, command)}`", "", " ".join(command.help.split()), ""]
    rows = option_rows(command)
    if rows:
        lines += ["| argument, option | |", "|---|---|"]
        lines += [f"| `{name}` | {text.replace('|', '&#124;').strip()} |" for name, text in rows]
        lines.append("")
    if opts:
        lines += [f"Also {', '.join(f'`{name}`' for name in opts)}.", ""]
    return "\n".join(lines)


def reference() -> str:
    return "\n" + "\n".join(section(path, command) for path, command in sorted(every_command().items()))


def test_the_page_is_what_help_says() -> None:
    assert PAGE.read_text(encoding="utf-8").partition(MARK)[2] == reference(), f"run {Path(__file__).name}"


@pytest.mark.parametrize("path", every_command())
def test_help_is_made_of_sentences(path: str) -> None:
    """Each text begins with a capital letter or a value, ends with a full stop or an example, and uses plain words."""
    command = every_command()[path]
    assert command.help, path
    texts = [command.help, *(text for _, text in option_rows(command))]
    for text in texts:
        assert text, path
        assert not re.search(r"(?i)\b(wish|so many|for people|for ever|misuse|mend|this once|told|lets go)\b", text), (
            text
        )
        assert re.search(r"[.:…}\w>]$", text.strip()), (path, text)
    for item in command.params:
        assert item.help, (path, item.name)


def test_examples_of_the_page_are_commands_with_options_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    known = every_command()
    examples = re.findall(r"\bpreftune ((?:[a-z]+ ?)+)([^\n|`&)]*)", text)
    assert len(examples) > 15
    for words, rest in examples:
        names = words.split()
        found = [" ".join(["preftune", *names[:count]]) for count in (2, 1) if len(names) >= count]
        path = next((name for name in found if name in known), None)
        assert path or f"preftune {names[0]}" in {name.rpartition(" ")[0] for name in known}, words
        if path:
            opts = {option for item in known[path].params for option in item.opts}
            assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest)) <= opts, (path, rest)


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(before + MARK + reference(), encoding="utf-8")
