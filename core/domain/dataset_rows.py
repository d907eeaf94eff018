"""Normalised rows of a dataset, as training reads them: one JSON object a line of `rows.jsonl`.

A text is a plain string (trained as it stands) or a list of messages (rendered by the base model's chat template).
Within one row, prompt and responses are all texts or all messages. `line` is the line of the file as uploaded.
A key that a row or a message has no use for is left out, never null.
"""

from enum import StrEnum
from typing import Any, Final, NotRequired, TypedDict, final

CONTEXT_FIELDS: Final[tuple[str, ...]] = ("tools", "documents")
"""Fields of a row that a chat template writes into the prompt."""


class DatasetKind(StrEnum):
    """Kind of a dataset's rows."""

    PREFERENCE = "preference"
    """prompt, chosen, rejected"""
    DEMONSTRATION = "demonstration"
    """prompt (may be empty) and response: SFT only"""
    UNPAIRED = "unpaired"
    """prompt, response and a label, desirable or not"""
    RESPONSES = "responses"
    """prompt, response and the model that gave it: to be judged"""


class DatasetOrigin(StrEnum):
    """How the service itself made a dataset."""

    CHANGE = "change"
    """The version of another, with rows dropped, swapped or added."""
    MERGE = "merge"
    SPLIT = "split"
    VOTES = "votes"
    """What people found better in an arena."""
    FEEDBACK = "feedback"
    GENERATION = "generation"
    """What models answered to prompts."""
    JUDGEMENT = "judgement"
    """What a rule, rewards or a language model found better."""
    ROUND = "round"
    """Answers of a policy in a round, paired."""


class CalledFunction(TypedDict):
    name: str
    arguments: dict[str, Any]
    """Parsed, also where the file has them as a JSON text."""


class ToolCall(TypedDict):
    id: NotRequired[str]
    type: str
    """`function`"""
    function: CalledFunction


class Message(TypedDict):
    role: str
    """`system`, `user`, `assistant` or `tool`"""
    content: str
    """Empty beside `tool_calls`, where nothing else is said."""
    reasoning_content: NotRequired[str]
    """What the assistant thinks before it answers."""
    tool_calls: NotRequired[list[ToolCall]]
    tool_call_id: NotRequired[str]
    """Call that a `tool` message answers."""
    name: NotRequired[str]
    """Name of the tool, or of the speaker."""
    train: NotRequired[bool]
    """False: an assistant turn that is context only, no loss is taken on it."""


Text = str | list[Message]


class RowContext(TypedDict, total=False):
    """Values that a chat template writes into the prompt beside its messages."""

    tools: list[dict[str, Any]]
    """Functions that may be called, as `{"type": "function", "function": {"name", "description", "parameters"}}`."""
    documents: list[dict[str, Any]]


@final
class PreferenceRow(RowContext):
    line: int
    prompt: Text
    chosen: Text
    rejected: Text


@final
class DemonstrationRow(RowContext):
    line: int
    prompt: Text
    response: Text


@final
class UnpairedRow(RowContext):
    line: int
    prompt: Text
    response: Text
    label: bool
    """True where the response is desirable."""


class RowIssue(TypedDict):
    """One fault or remark about a row or the file."""

    line: int | None
    row: int | None
    """0-based index of the row in the file; null for what concerns the whole file."""
    severity: str
    """`error` (the row is refused) or `warning`."""
    code: str
    detail: str
    pointer: NotRequired[str | None]
    """JSON pointer into the row, such as `/rejected`."""
