"""Layouts with one response a row: demonstrations, and unpaired responses with a label."""

from collections.abc import Mapping
from typing import Final

from core.datasets.faults import RowFault, quoted
from core.datasets.layouts.columns import Role
from core.datasets.layouts.layout import Example, Layout, Reading, SourceRow, first_filled
from core.datasets.layouts.pairs import require_reply, without_prefix
from core.datasets.layouts.prompts import EXTRAS, INSTRUCTION, instruction_prompt
from core.datasets.messages.messages import as_messages, read_field, read_messages, read_string, read_text, type_name
from core.domain.dataset_rows import DatasetKind, Message, Text
from core.domain.issue_codes import IssueCode

LABEL_WORDS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "1", "yes", "good", "desirable", "chosen", "accepted", "positive", "like", "up"), True),
    **dict.fromkeys(("thumbs_up", "thumbs-up", "thumbs up", "upvote", "correct"), True),
    **dict.fromkeys(("false", "0", "no", "bad", "undesirable", "rejected", "negative", "dislike", "down"), False),
    **dict.fromkeys(("thumbs_down", "thumbs-down", "thumbs down", "downvote", "incorrect"), False),
}  # fmt: skip


_LABEL_FIELDS: Final = ("label", "kto_tag", "is_safe", "tag", "feedback")
_LABELS_OF: Final = dict.fromkeys(_LABEL_FIELDS, Role.LABEL)


def label_of(value: object) -> bool | None:
    """True for desirable, False for undesirable; None for what is no label."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int):
        key = str(value).strip().lower()
        return LABEL_WORDS.get(key.removesuffix(".0"))
    return None


def read_label(row: SourceRow, name: str) -> bool:
    value = read_field(row, name)
    label = label_of(value)
    if label is not None:
        return label
    shown = quoted(value) if isinstance(value, str) else type_name(value)
    raise RowFault(
        IssueCode.INVALID_LABEL, f"'{name}' is {shown}; it must be true (desirable) or false (undesirable).", f"/{name}"
    )


def read_single(prompt: Text, response: Text, label: bool | None, response_field: str) -> Reading:
    if isinstance(prompt, str) and isinstance(response, str):
        return Reading([Example(prompt, response, None, label)], [])
    prompt_messages = as_messages(prompt, "user")
    reply = without_prefix(as_messages(response, "assistant"), prompt_messages)
    require_reply(reply, response_field)
    return Reading([Example(prompt_messages, reply, None, label)], [])


def _split_last_reply(messages: list[Message], label: bool | None, name: str) -> Reading:
    """Split a whole conversation: its last message is the response, the earlier ones the prompt."""
    reply = messages[-1:]
    require_reply(reply, name)
    if len(messages) == 1:
        raise RowFault(
            IssueCode.EMPTY_MESSAGES,
            f"'{name}' has one message only; there must be a prompt before the reply.",
            f"/{name}",
        )
    return Reading([Example(messages[:-1], reply, None, label)], [])


def split_first_reply(messages: list[Message], name: str) -> Reading:
    """Split a whole conversation at its first reply, so that every reply of the assistant is trained on.

    The response is all from the first reply on, with the later turns of the user between them.
    """
    require_reply(messages[-1:], name)
    first = next((index for index, message in enumerate(messages) if index and message["role"] == "assistant"), 0)
    if first == 0:
        raise RowFault(
            IssueCode.EMPTY_MESSAGES,
            f"'{name}' has one message only; there must be a prompt before the reply.",
            f"/{name}",
        )
    return Reading([Example(messages[:first], messages[first:])], [])


def _conversation(row: SourceRow, name: str) -> list[Message]:
    return read_messages(read_field(row, name), f"/{name}")


_RESPONSES: Final = ("completion", "response")
_OUTPUTS: Final = ("output", "response")
_CONVERSATIONS: Final = ("messages", "conversations")


def _response_field(row: SourceRow) -> str:
    return first_filled(row, _RESPONSES) or _RESPONSES[-1]


def _has_prompt_and_response(row: SourceRow) -> bool:
    return "prompt" in row and isinstance(row.get(_response_field(row)), str | list | dict)


def _read_unpaired(row: SourceRow) -> Reading:
    name = _response_field(row)
    return read_single(read_text(row, "prompt"), read_text(row, name), _read_label_of(row), name)


def _label_field(row: SourceRow) -> str | None:
    return first_filled(row, _LABEL_FIELDS)


def _read_label_of(row: SourceRow) -> bool:
    label = read_label(row, _label_field(row) or _LABEL_FIELDS[0])
    other = next((name for name in _LABEL_FIELDS if label_of(row.get(name)) is (not label)), None)
    if other is not None:
        raise RowFault(IssueCode.INVALID_LABEL, f"{quoted(other)} and another label of the row disagree.", f"/{other}")
    return label


def _has_tag(row: SourceRow) -> bool:
    """Whether a label says good or bad; `tag` may be a topic, and `feedback` a text, in other files."""
    name = _label_field(row)
    return name is not None and (name not in ("tag", "feedback") or isinstance(row[name], bool))


def _read_labelled_messages(row: SourceRow) -> Reading:
    name = first_filled(row, _CONVERSATIONS) or _CONVERSATIONS[0]
    return _split_last_reply(_conversation(row, name), _read_label_of(row), name)


def _read_labelled_alpaca(row: SourceRow) -> Reading:
    name = first_filled(row, _OUTPUTS) or _OUTPUTS[0]
    return read_single(instruction_prompt(row), read_text(row, name), _read_label_of(row), name)


def _read_turbo_kto(row: SourceRow) -> Reading:
    return read_single(
        _conversation(row, "context"), read_text(row, "answer"), read_label(row, "is_desirable"), "answer"
    )


def _read_prompt_completion(row: SourceRow) -> Reading:
    name = _response_field(row)
    return read_single(read_text(row, "prompt"), read_text(row, name), None, name)


def _read_alpaca(row: SourceRow) -> Reading:
    name = first_filled(row, _OUTPUTS) or _OUTPUTS[0]
    return read_single(instruction_prompt(row), read_text(row, name), None, name)


SINGLE_LAYOUTS: Final = (
    Layout(
        name="unpaired",
        kind=DatasetKind.UNPAIRED,
        title="one response with a label (prompt, completion or response; label, kto_tag, tag or is_safe)",
        columns={"prompt": Role.PROMPT, "completion": Role.RESPONSE, "response": Role.RESPONSE, **_LABELS_OF},
        one_of=(_RESPONSES, _LABEL_FIELDS),
        matches=lambda row: _has_tag(row) and _has_prompt_and_response(row),
        read=_read_unpaired,
    ),
    Layout(
        name="unpaired-messages",
        kind=DatasetKind.UNPAIRED,
        title="a conversation with a label (messages or conversations; label, kto_tag, tag …)",
        columns={"messages": Role.RESPONSE, "conversations": Role.RESPONSE, **_LABELS_OF},
        one_of=(_CONVERSATIONS, _LABEL_FIELDS),
        matches=lambda row: ("messages" in row or isinstance(row.get("conversations"), list)) and _has_tag(row),
        read=_read_labelled_messages,
    ),
    Layout(
        name="unpaired-alpaca",
        kind=DatasetKind.UNPAIRED,
        title="Alpaca rows with a label (instruction, input, output; label, kto_tag, tag or is_safe)",
        columns={
            **INSTRUCTION,
            **dict.fromkeys(_OUTPUTS, Role.RESPONSE),
            **_LABELS_OF,
        },
        one_of=(EXTRAS, _OUTPUTS, _LABEL_FIELDS),
        matches=lambda row: "instruction" in row and ("output" in row or "response" in row) and _has_tag(row),
        read=_read_labelled_alpaca,
        source="hiyouga/LLaMA-Factory, data/README.md at 2ad9871 (kto_tag)",
    ),
    Layout(
        name="unpaired-turbo-alignment",
        kind=DatasetKind.UNPAIRED,
        title="turbo-alignment rows (context, answer, is_desirable)",
        columns={"context": Role.PROMPT, "answer": Role.RESPONSE, "is_desirable": Role.LABEL},
        matches=lambda row: all(name in row for name in ("context", "answer", "is_desirable")),
        read=_read_turbo_kto,
        source="turbo-llm/turbo-alignment, README.md at 45c01db",
    ),
    Layout(
        name="messages",
        kind=DatasetKind.DEMONSTRATION,
        title="conversations (messages)",
        columns={"messages": Role.RESPONSE},
        matches=lambda row: isinstance(row.get("messages"), list),
        read=lambda row: split_first_reply(_conversation(row, "messages"), "messages"),
    ),
    Layout(
        name="sharegpt",
        kind=DatasetKind.DEMONSTRATION,
        title="ShareGPT conversations (conversations)",
        columns={"conversations": Role.RESPONSE},
        matches=lambda row: isinstance(row.get("conversations"), list),
        read=lambda row: split_first_reply(_conversation(row, "conversations"), "conversations"),
    ),
    Layout(
        name="prompt-completion",
        kind=DatasetKind.DEMONSTRATION,
        title="a prompt and its response (prompt, completion or response)",
        columns={"prompt": Role.PROMPT, "completion": Role.RESPONSE, "response": Role.RESPONSE},
        one_of=(_RESPONSES,),
        matches=_has_prompt_and_response,
        read=_read_prompt_completion,
    ),
    Layout(
        name="alpaca",
        kind=DatasetKind.DEMONSTRATION,
        title="Alpaca rows (instruction, input, output)",
        columns={**INSTRUCTION, **dict.fromkeys(_OUTPUTS, Role.RESPONSE)},
        one_of=(EXTRAS, _OUTPUTS),
        matches=lambda row: "instruction" in row and ("output" in row or "response" in row),
        read=_read_alpaca,
    ),
    Layout(
        name="text",
        kind=DatasetKind.DEMONSTRATION,
        title="whole texts without a prompt (text)",
        columns={"text": Role.RESPONSE},
        matches=lambda row: isinstance(row.get("text"), str),
        read=lambda row: Reading([Example("", read_string(row, "text"))], []),
    ),
)
