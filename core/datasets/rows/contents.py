"""Contents of an example without its roles: the texts that are measured, compared and sketched."""

from typing import NamedTuple

import orjson

from core.datasets.layouts.layout import Example
from core.domain.dataset_rows import Message, Text


class Contents(NamedTuple):
    prompt: str
    first: str
    second: str
    """Empty where the example has one response."""


def content_of(text: Text) -> str:
    return (
        text
        if isinstance(text, str)
        else "\n".join([message["content"] if len(message) == 2 else _said(message) for message in text])
    )


def _said(message: Message) -> str:
    """Join reasoning, content and calls: all that a model would have to write."""
    parts = [message.get("reasoning_content", ""), message["content"]]
    parts += [orjson.dumps(call["function"]).decode() for call in message.get("tool_calls", ())]
    return "\n".join(part for part in parts if part)


def contents_of(example: Example) -> Contents:
    prompt, first, second = example[:3]
    if type(prompt) is type(first) is type(second) is str:  # nearly always, of those without messages
        return Contents(prompt, first, second)
    return Contents(content_of(prompt), content_of(first), content_of(second) if second is not None else "")


class Accepted(NamedTuple):
    """A row that is accepted into the dataset."""

    line: int
    row: int
    """Index among the file's rows, counted from the beginning of the batch."""
    example: Example
    contents: Contents
