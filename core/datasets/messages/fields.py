"""Fields of a message besides role and content: tool calls, reasoning, and whether it is trained on."""

from collections.abc import Mapping
from typing import Final

import orjson

from core.datasets.faults import RowFault, quoted
from core.datasets.messages.roles import ROLES
from core.domain.dataset_rows import Message, ToolCall
from core.domain.issue_codes import IssueCode

_REASONING_KEYS: Final = ("reasoning_content", "reasoning", "thinking")
_TRAIN_KEYS: Final = ("train", "training", "weight", "loss", "loss_weight")
"""OpenAI: `weight`; axolotl: `train` and `training`; ms-swift: `loss`; LLaMA-Factory: `loss_weight`."""
_MEDIA_KEYS: Final = ("image", "images", "image_url", "audio", "audios", "video", "videos")
READ_KEYS: Final = frozenset(
    (
        *("role", "from", "content", "value", "tool_calls", "function_call", "tool_call_id", "name"),
        *_REASONING_KEYS,
        *_TRAIN_KEYS,
        *_MEDIA_KEYS,
    )
)
"""Every key of a message that is read, or refused."""

_OF_ASSISTANT: Final = frozenset((*_REASONING_KEYS, "function_call"))
"""Keys that are read in messages of the assistant only."""


def unread_keys(message: Mapping[str, object]) -> list[str]:
    """Keys of a message that have something in them, and of which nothing is used."""
    unread = [key for key in message if key not in READ_KEYS]
    if message.get("content") is not None and message.get("value", message["content"]) != message["content"]:
        unread.append("value")
    role = message.get("role", message.get("from"))
    if isinstance(role, str) and ROLES.get(role.strip().lower()) != "assistant":
        unread += [key for key in message if key in _OF_ASSISTANT or (key in _TRAIN_KEYS and message[key])]
    return [key for key in unread if message[key] not in (None, "", [], {})]


def read_fields(source: Mapping[str, object], message: Message, pointer: str) -> None:
    """Add to `message` the fields of `source` besides its role and content. Raises RowFault."""
    _refuse_media(source, pointer)
    if message["role"] == "assistant":
        if (reasoning := _read_reasoning(source, pointer)) is not None:
            message["reasoning_content"] = reasoning
        if calls := _read_calls(source, pointer):
            message["tool_calls"] = calls
        if not _is_trained(source, pointer):
            message["train"] = False
    elif source.get("tool_calls"):
        raise _bad_call("only messages of the assistant call tools", f"{pointer}/tool_calls")
    for key in ("name", "tool_call_id"):
        value = source.get(key)
        if isinstance(value, str) and value:
            message[key] = value


def says_without_content(source: Mapping[str, object]) -> bool:
    """Whether the message may lack content."""
    return bool(source.get("tool_calls") or source.get("function_call"))


def read_call_turn(content: str, pointer: str) -> list[ToolCall]:
    """Return the calls in the JSON text of a `function_call` turn: one, or a list of them. Raises RowFault."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _bad_call('the text of the turn is not JSON; write {"name": …, "arguments": {…}}', pointer) from None
    return _read_list(value if isinstance(value, list) else [value], pointer)


def _read_reasoning(source: Mapping[str, object], pointer: str) -> str | None:
    found = [source[key] for key in _REASONING_KEYS if source.get(key)]
    if not found:
        return None
    first = found[0]
    if not isinstance(first, str):
        raise RowFault(IssueCode.WRONG_TYPE, f"The reasoning of the message at {pointer} must be a text.", pointer)
    if any(other != first for other in found[1:]):
        raise RowFault(
            IssueCode.WRONG_TYPE,
            f"The message at {pointer} has two different texts of reasoning ({', '.join(_REASONING_KEYS)}); keep one.",
            pointer,
        )
    return first if first.strip() else None


def _read_calls(source: Mapping[str, object], pointer: str) -> list[ToolCall]:
    calls, single = source.get("tool_calls"), source.get("function_call")
    if not calls:
        return _read_list([single], f"{pointer}/function_call") if single else []
    if isinstance(calls, str):
        return read_call_turn(calls, f"{pointer}/tool_calls")
    if not isinstance(calls, list):
        raise _bad_call("'tool_calls' must be a list", f"{pointer}/tool_calls")
    return _read_list(calls, f"{pointer}/tool_calls")


def _read_list(calls: list[object], pointer: str) -> list[ToolCall]:
    return [_read_call(call, f"{pointer}/{index}") for index, call in enumerate(calls)]


def _read_call(call: object, pointer: str) -> ToolCall:
    """Read `{"id", "type", "function": {"name", "arguments"}}`, or the function alone."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise _bad_call("a call is an object with a 'function'", pointer)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise _bad_call("the function has no 'name'", pointer)
    if call.get("type") not in (None, "function"):
        raise _bad_call(f"calls of type {quoted(str(call['type']))} are not known, only 'function'", pointer)
    arguments = _read_arguments(function.get("arguments"), pointer)
    read: ToolCall = {"type": "function", "function": {"name": name, "arguments": arguments}}
    if isinstance(identity := call.get("id"), str) and identity:
        read["id"] = identity
    return read


def _read_arguments(value: object, pointer: str) -> dict[str, object]:
    """Read an object, or its JSON text, as the OpenAI API has it; null and an empty text are no arguments."""
    if isinstance(value, str) and value.strip():
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise _bad_call("its 'arguments' are not JSON", pointer) from None
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise _bad_call("its 'arguments' are not an object", pointer)
    return value


def _is_trained(source: Mapping[str, object], pointer: str) -> bool:
    for key in _TRAIN_KEYS:
        value = source.get(key)
        if value is None:
            continue
        if value not in (0, 1):  # also true and false, 0.0 and 1.0
            raise RowFault(
                IssueCode.MESSAGE_WEIGHT,
                f"{quoted(key)} of the message at {pointer} must be 0 (context only) or 1 (trained on).",
                f"{pointer}/{key}",
            )
        if value == 0:
            return False
    return True


def _refuse_media(source: Mapping[str, object], pointer: str) -> None:
    for key in _MEDIA_KEYS:
        if source.get(key):
            raise RowFault(
                IssueCode.NOT_TEXT, f"The message at {pointer} has {quoted(key)}; only text can be trained on.", pointer
            )


def _bad_call(why: str, pointer: str) -> RowFault:
    return RowFault(IssueCode.INVALID_TOOL_CALL, f"The tool call at {pointer} cannot be read: {why}.", pointer)
