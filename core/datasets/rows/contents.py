"""What an example says, without who says it: the texts that are measured, compared and sketched."""

from typing import NamedTuple

from core.datasets.layouts.layout import Example
from core.domain.dataset_rows import Text


class Contents(NamedTuple):
    prompt: str
    first: str
    second: str
    """Empty where the example has one response."""


def content_of(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join([message["content"] for message in text])


def contents_of(example: Example) -> Contents:
    prompt, first, second, _ = example
    if type(prompt) is type(first) is type(second) is str:  # nearly always, of those without messages
        return Contents(prompt, first, second)
    return Contents(content_of(prompt), content_of(first), content_of(second) if second is not None else "")


class Accepted(NamedTuple):
    """A row that goes into the data set."""

    line: int
    row: int
    """Of the file's rows, counted from the beginning of the batch."""
    example: Example
    contents: Contents
