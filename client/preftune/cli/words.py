"""The service's messages in the words of the command line: options where they name fields of the API."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Final

from preftune import ApiError

READING_OPTIONS: Final = {
    "kind": "--kind",
    "format": "--format",
    "on_error": "--on-error",
    "columns": "--column",
    "values": "--value",
    "ignore": "--ignore",
    "ties": "--ties",
    "split": "--split",
}
"""Options of `datasets upload` by the parameters of `POST /datasets`."""
ARGUMENTS: Final = {
    **READING_OPTIONS,
    "base_model": "BASE_MODEL",
    "dataset_id": "DATASET",
    "method": "--method",
    "variant": "--variant",
    "beta": "--beta",
    "name": "--name",
    "chat_template_kwargs": "--chat-template-kwargs",
    "priority": "--priority",
    "exclude_lines": "--exclude",
    "swap_lines": "--swap",
    "status": "--status",
    "sort": "--sort",
    "flag": "--flag",
    "metric": "--metric",
    "max_parallel": "--max-parallel",
    "max_length": "--max-length",
}
"""Arguments and options by the API's names."""
_ASSIGNED: Final = re.compile(rf"(?<![\w.-])({'|'.join(READING_OPTIONS)})=(?=\S)")
_QUOTED: Final = re.compile(rf"`({'|'.join(READING_OPTIONS)})`")
_WORD: Final = re.compile(r"[\w-]+")


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return the number with its noun: `1 job`, `1,234 jobs`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def printable(text: str) -> str:
    """Return a text of several lines without what a terminal would obey, such as an escape code."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def ordinal(number: int) -> str:
    """Return `1st`, `2nd`, `3rd`, `4th`."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def as_options(text: str) -> str:
    """Return a message on a file with options in place of parameters: `--on-error skip` for `on_error=skip`."""
    return _QUOTED.sub(lambda found: f"`{READING_OPTIONS[found[1]]}`", "".join(_replaced(text)))


def error_text(error: ApiError, rest: str | None = None, arguments: Mapping[str, str] | None = None) -> str:
    """Return what the service refused and why, each fault once and by the argument that it is of.

    `rest`: the option that fields without an option of their own go into, such as `--settings`. `arguments`: those of
    the command that are called otherwise than in `ARGUMENTS`, those of objects by their path, such as `judge/kind`.
    """
    if error.code == "api-key-missing":
        return "The service asks for an API key. Set PREFTUNE_API_KEY to one; its operator has it, or makes one."
    if error.code == "api-key-invalid":
        return f"{error.detail} It is taken from PREFTUNE_API_KEY."
    known = {**ARGUMENTS, **(arguments or {})}
    faults = [
        f"{argument_of(fault.get('pointer', ''), rest, known)}{as_options(fault.get('detail', ''))}"
        for fault in error.errors
    ]
    return error.told(as_options(error.detail), faults)


def argument_of(pointer: str, rest: str | None, known: Mapping[str, str] = ARGUMENTS) -> str:
    """Return the argument that a JSON pointer means, with a colon; empty for the whole request."""
    first, *inner = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]] or [""]
    if inner and pointer[1:] in known:
        return f"{known[pointer[1:]]}: "
    if first == "job" and inner and not any(name.startswith("job/") for name in known):  # of a sweep
        first, *inner = inner
    if not first:
        return ""
    if first in known:
        return f"{' '.join([known[first], *inner])}: "
    path = ".".join([first, *inner])
    return f"{rest} {path}: " if rest else f"{path}: "


def _replaced(text: str) -> Iterator[str]:
    position = 0
    for found in _ASSIGNED.finditer(text):
        if found.start() < position:
            continue
        value, end = _value_at(text, found.end())
        if end == found.end():
            continue
        yield text[position : found.start()]
        yield _options(found[1], value)
        position = end
    yield text[position:]


def _value_at(text: str, start: int) -> tuple[object, int]:
    """Return the value that begins there, JSON or a word, and its end."""
    if text[start] in '{["':
        try:
            return json.JSONDecoder().raw_decode(text, start)
        except ValueError:
            return None, start
    word = _WORD.match(text, start)
    return (word[0], word.end()) if word else (None, start)


def _options(name: str, value: object) -> str:
    option = READING_OPTIONS[name]
    if isinstance(value, dict):
        given = [f"{key}={meant}" for key, meant in value.items()]
    else:
        given = [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return " ".join(f"{option} {shlex.quote(item)}" for item in given)
