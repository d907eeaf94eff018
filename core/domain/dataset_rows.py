"""The normalised rows of a data set: what training reads, one JSON object a line of `rows.jsonl`.

A text is a plain string (trained as it stands) or a list of messages (rendered by the base model's chat template).
Within one row, prompt and responses are all texts or all messages. `line` is the line of the file as uploaded.
"""

from enum import StrEnum
from typing import NotRequired, TypedDict, final


class DatasetKind(StrEnum):
    """What a data set's rows are."""

    PREFERENCE = "preference"
    """prompt, chosen, rejected"""
    DEMONSTRATION = "demonstration"
    """prompt (may be empty) and response: SFT only"""
    UNPAIRED = "unpaired"
    """prompt, response and a label, desirable or not"""


class Message(TypedDict):
    role: str
    """`system`, `user`, `assistant` or `tool`"""
    content: str


Text = str | list[Message]


@final
class PreferenceRow(TypedDict):
    line: int
    prompt: Text
    chosen: Text
    rejected: Text


@final
class DemonstrationRow(TypedDict):
    line: int
    prompt: Text
    response: Text


@final
class UnpairedRow(TypedDict):
    line: int
    prompt: Text
    response: Text
    label: bool
    """True where the response is desirable."""


class RowIssue(TypedDict):
    """One thing wrong with, or remarkable about, a row or the file."""

    line: int | None
    row: int | None
    """0-based index of the row in the file; null for what concerns the whole file."""
    severity: str
    """`error` (the row is refused) or `warning`."""
    code: str
    detail: str
    pointer: NotRequired[str | None]
    """JSON pointer into the row, such as `/rejected`."""
