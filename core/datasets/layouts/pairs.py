"""Common last step of all pair layouts: prompt, chosen and rejected, as texts or messages, to one example."""

from collections.abc import Sequence

from core.datasets.faults import Note, RowFault
from core.datasets.layouts.layout import Example, Reading
from core.datasets.messages.messages import as_messages
from core.domain.dataset_rows import Message, Text
from core.domain.issue_codes import IssueCode


def read_pair(prompt: Text, chosen: Text, rejected: Text, notes: Sequence[Note] = ()) -> Reading:
    """Read texts as a text row; else all as messages, without a prompt repeated at the head of both responses.

    Raises:
        RowFault: a response is no reply of the assistant, or the prompt is empty.
    """
    if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
        return Reading([Example(prompt, chosen, rejected)], notes)
    prompt_messages = as_messages(prompt, "user")
    if not prompt_messages:
        raise RowFault(IssueCode.EMPTY_MESSAGES, "The prompt is an empty list of messages.", "/prompt")
    chosen_reply = without_prefix(as_messages(chosen, "assistant"), prompt_messages)
    rejected_reply = without_prefix(as_messages(rejected, "assistant"), prompt_messages)
    require_reply(chosen_reply, "chosen")
    require_reply(rejected_reply, "rejected")
    return Reading([Example(prompt_messages, chosen_reply, rejected_reply)], notes)


def without_prefix(messages: list[Message], prefix: list[Message]) -> list[Message]:
    if len(messages) > len(prefix) and messages[: len(prefix)] == prefix:
        return messages[len(prefix) :]
    return messages


def split_reply(messages: list[Message], name: str) -> tuple[list[Message], list[Message]]:
    """Split a whole conversation before its last reply and the calls of tools that lead to it. Raises RowFault."""
    require_reply(messages[-1:], name)
    begin = len(messages) - 1
    while begin > 1 and messages[begin - 1]["role"] in ("assistant", "tool"):
        begin -= 1
    return messages[:begin], messages[begin:]


def require_reply(messages: list[Message], name: str) -> None:
    """Require that a response begins and ends with a message of the assistant."""
    if not messages:
        raise RowFault(IssueCode.NO_ASSISTANT_REPLY, f"'{name}' has no message after the prompt.", f"/{name}")
    if messages[-1]["role"] != "assistant":
        raise RowFault(
            IssueCode.NO_ASSISTANT_REPLY,
            f"'{name}' ends with a message of the {messages[-1]['role']}; it must end with the assistant's reply.",
            f"/{name}",
        )
    if messages[0]["role"] != "assistant":
        raise RowFault(
            IssueCode.DIFFERENT_PROMPTS,
            f"'{name}' goes on with a message of the {messages[0]['role']} where the assistant's reply should begin: "
            "chosen and rejected must answer the same prompt.",
            f"/{name}",
        )
