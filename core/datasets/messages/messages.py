"""Texts and messages of files, converted to the two forms of `dataset_rows.Text`."""

from collections.abc import Mapping, Sequence
from typing import Final

from core.datasets.faults import RowFault, quoted
from core.datasets.messages.fields import read_call_turn, read_fields, says_without_content
from core.datasets.messages.roles import CALL_ROLES, ROLES
from core.datasets.messages.undecoded import Undecoded
from core.domain.dataset_rows import Message, Text
from core.domain.issue_codes import IssueCode

MAX_MESSAGES: Final = 1_000

_PLAIN_KEYS: Final = frozenset(("role", "from", "content", "value"))
_JSON_TYPE_NAMES: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def type_name(value: object) -> str:
    if isinstance(value, Undecoded):
        return value.what
    return _JSON_TYPE_NAMES.get(type(value), "a value that is not JSON")


def read_field(row: Mapping[str, object], name: str) -> object:
    """Return the value of a field that must be present and not null."""
    value = row.get(name)
    if value is not None:
        return value
    if name in row:
        raise RowFault(IssueCode.NULL_FIELD, f"'{name}' is null; it must be a text.", f"/{name}")
    raise RowFault(IssueCode.MISSING_FIELD, f"'{name}' is missing.", f"/{name}")


def read_string(row: Mapping[str, object], name: str) -> str:
    value = read_field(row, name)
    if type(value) is str:
        return value
    raise RowFault(IssueCode.WRONG_TYPE, f"'{name}' is {type_name(value)}; it must be a text.", f"/{name}")


def read_text(row: Mapping[str, object], name: str) -> Text:
    """Read a text or messages (a list, or a single one)."""
    value = read_field(row, name)
    if type(value) is str:
        return value
    if isinstance(value, dict):
        return [read_message(value, f"/{name}")]
    if isinstance(value, list):
        return read_messages(value, f"/{name}")
    raise RowFault(
        IssueCode.WRONG_TYPE,
        f"'{name}' is {type_name(value)}; it must be a text or a list of messages.",
        f"/{name}",
    )


def read_object(row: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = read_field(row, name)
    if not isinstance(value, dict):
        raise RowFault(IssueCode.WRONG_TYPE, f"'{name}' is {type_name(value)}; it must be an object.", f"/{name}")
    return value


def read_messages(value: object, pointer: str) -> list[Message]:
    if isinstance(value, dict):
        return [read_message(value, pointer)]
    if not isinstance(value, list):
        raise RowFault(
            IssueCode.WRONG_TYPE, f"{pointer} is {type_name(value)}; it must be a list of messages.", pointer
        )
    if not value:
        raise RowFault(IssueCode.EMPTY_MESSAGES, f"{pointer} is an empty list of messages.", pointer)
    if len(value) > MAX_MESSAGES:
        raise RowFault(
            IssueCode.TOO_MANY_MESSAGES,
            f"{pointer} has {len(value)} messages; {MAX_MESSAGES} are allowed.",
            pointer,
        )
    return [read_message(item, f"{pointer}/{index}") for index, item in enumerate(value)]


def read_message(value: object, pointer: str) -> Message:
    if not isinstance(value, dict):
        raise RowFault(
            IssueCode.WRONG_TYPE,
            f"{pointer} is {type_name(value)}; a message is an object with 'role' and 'content'.",
            pointer,
        )
    message: Message = {"role": _read_role(value, pointer), "content": _read_content(value, pointer)}
    if not _PLAIN_KEYS.issuperset(value):
        read_fields(value, message, pointer)
    if message["role"] == "assistant" and _role_as_written(value) in CALL_ROLES:
        message["tool_calls"] = read_call_turn(message["content"], pointer)
        message["content"] = ""
    return message


def _role_key(message: Mapping[str, object]) -> str:
    return "from" if message.get("role") is None and "from" in message else "role"


def _role_as_written(message: Mapping[str, object]) -> object:
    role = message.get(_role_key(message))
    return role.strip().lower() if isinstance(role, str) else role


def _read_role(message: Mapping[str, object], pointer: str) -> str:
    key = _role_key(message)
    role = message.get(key)
    if not isinstance(role, str):
        found = "has no 'role'" if role is None else f"has {type_name(role)} as its role"
        raise RowFault(IssueCode.UNKNOWN_ROLE, f"The message at {pointer} {found}.", f"{pointer}/{key}")
    known = ROLES.get(role) or ROLES.get(role.strip().lower())
    if known is None:
        raise RowFault(
            IssueCode.UNKNOWN_ROLE,
            f"The message at {pointer} has the role {quoted(role)}; known are system, user, assistant and tool.",
            f"{pointer}/{key}",
        )
    return known


def _read_content(message: Mapping[str, object], pointer: str) -> str:
    key = "value" if message.get("content") is None and "value" in message else "content"
    content = message.get(key)
    if type(content) is str:
        return content
    if isinstance(content, Sequence):
        return "".join(_read_part(part, f"{pointer}/{key}/{index}") for index, part in enumerate(content))
    if content is None and says_without_content(message):
        return ""
    if content is None:
        raise RowFault(IssueCode.MISSING_CONTENT, f"The message at {pointer} has no 'content'.", f"{pointer}/content")
    raise RowFault(
        IssueCode.WRONG_TYPE,
        f"The content of the message at {pointer} is {type_name(content)}; it must be a text.",
        f"{pointer}/{key}",
    )


def _read_part(part: object, pointer: str) -> str:
    """Read one of the typed parts of a content list: `{"type": "text", "text" or "value": …}`."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text":
        text = part.get("text", part.get("value"))
        if isinstance(text, str):
            return text
    shown = part.get("type") if isinstance(part, dict) else None
    what = f"of type {quoted(shown)}" if isinstance(shown, str) else type_name(part)
    raise RowFault(
        IssueCode.NOT_TEXT, f"The part of the content at {pointer} is {what}; only text can be trained on.", pointer
    )


def as_messages(text: Text, role: str) -> list[Message]:
    return [{"role": role, "content": text}] if isinstance(text, str) else text
