"""Features of a chat template beside roles and contents, found by rendering one probe each.

A template that leaves out the calls, tools, documents, reasoning or names of a row would train on half of it; so a row
that has them is refused where the template does not write them.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from core.domain.dataset_rows import Message, RowContext
from core.tokenization.errors import ChatTemplateRefused, TemplateTooCostly, UnencodableRow

NO_CONTEXT: Final[RowContext] = {}
_NAME, _KEY, _VALUE = "preftune_probe", "probe_key", "7301946825"
_CALL: Final = {
    "id": "probe1234",  # nine characters, which some templates ask for
    "type": "function",
    "function": {"name": _NAME, "arguments": {_KEY: _VALUE}},
}
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {_KEY: {"type": "string", "description": "Any."}}},
    },
}
_QUESTION: Final[Message] = {"role": "user", "content": "1"}
_ANSWER: Final[Message] = {"role": "assistant", "content": "2"}
_SPEAKER: Final = "probe5081"
_NAMED: Final = {f"name of {role}": role for role in ("system", "user", "assistant", "tool")}
"""Features of names, each with the role: a template may write the names of tools alone."""
_TITLES: Final = {
    "tool_calls": "tool calls (`tool_calls`)",
    "tools": "tool definitions (`tools`)",
    "documents": "documents (`documents`)",
    "reasoning_content": "the reasoning of a response (`reasoning_content`)",
    **{feature: f"the name of a message of the {role} (`name`)" for feature, role in _NAMED.items()},
}
_REMEDIES: Final = {
    "tools": " or upload the rows without the column",
    "documents": " or upload the rows without the column",
    **dict.fromkeys(_NAMED, ', or upload the rows with ignore=["messages[].name"] (the column as the file calls it)'),
}

Render = Callable[[list[dict[str, Any]], RowContext], str]


class TemplateFeatures:
    """Features of one template. Nothing is rendered before a row needs it."""

    def __init__(self, render: Render, source: str) -> None:
        self._render = render
        self._reasoning_key = _reasoning_key(source)
        self._known: dict[str, bool] = {}
        self._are_arguments_text: bool | None = None

    def prepare(self, message: Message) -> dict[str, Any]:
        """Return the message as the template reads it: its name for reasoning, arguments parsed or as text."""
        prepared: dict[str, Any] = {key: value for key, value in message.items() if key != "train"}
        if "reasoning_content" in prepared:
            prepared[self._reasoning_key] = prepared.pop("reasoning_content")
        if "tool_calls" in prepared and self._takes_arguments_as_text():
            prepared["tool_calls"] = list(map(_with_text_arguments, prepared["tool_calls"]))
        return prepared

    def require(self, messages: Iterable[Message], context: RowContext) -> None:
        """Raise UnencodableRow where the template leaves out what the row holds."""
        if context.get("tools"):
            self._require("tools")
        if context.get("documents"):
            self._require("documents")
        called: set[str] = set()
        for message in messages:
            if len(message) == 2:
                continue
            if "tool_calls" in message:
                self._require("tool_calls")
                called.update(call["function"]["name"] for call in message["tool_calls"])
            if "name" in message and message["name"] not in called | {message["role"]}:
                self._require(f"name of {message['role']}")

    def writes(self, feature: str) -> bool:
        """Whether the template writes `tool_calls`, `tools`, `documents`, `reasoning_content` or a `name of user`."""
        if feature not in self._known:
            role = _NAMED.get(feature)
            self._known[feature] = _PROBES[feature](self) if role is None else self._probe_name(role)
        return self._known[feature]

    def _require(self, feature: str) -> None:
        if not self.writes(feature):
            raise UnencodableRow(
                f"The base model's chat template does not write {_TITLES[feature]}, so the row would lose them. Use a "
                f"base model whose template does{_REMEDIES.get(feature, '')}."
            )

    def _takes_arguments_as_text(self) -> bool:
        if self._are_arguments_text is None:
            self._are_arguments_text = not self._writes_call(_CALL) and self._writes_call(_with_text_arguments(_CALL))
        return self._are_arguments_text

    def _writes_call(self, call: Mapping[str, Any]) -> bool:
        answer = {"role": "assistant", "content": "", "tool_calls": [call]}
        rendered = self._try(dict(_QUESTION), answer)
        # A Python dictionary in the text is a template that expects the arguments as JSON text already; JSON in JSON
        # one that expects them parsed.
        is_clean = f"'{_KEY}'" not in rendered and f'\\"{_KEY}' not in rendered
        return is_clean and all(part in rendered for part in (_NAME, _KEY, _VALUE))

    def _probe_calls(self) -> bool:
        return self._writes_call(_with_text_arguments(_CALL) if self._takes_arguments_as_text() else _CALL)

    def _probe_tools(self) -> bool:
        rendered = self._try(dict(_QUESTION), context={"tools": [_TOOL]})
        return _NAME in rendered and _KEY in rendered

    def _probe_documents(self) -> bool:
        return _VALUE in self._try(dict(_QUESTION), context={"documents": [{"title": "probe", "text": _VALUE}]})

    def _probe_reasoning(self) -> bool:
        return _VALUE in self._try(dict(_QUESTION), dict(_ANSWER) | {self._reasoning_key: _VALUE})

    def _probe_name(self, role: str) -> bool:
        messages = [dict(_QUESTION), dict(_ANSWER)]
        if role == "tool":
            calls = [_with_text_arguments(_CALL) if self._takes_arguments_as_text() else _CALL]
            messages = [dict(_QUESTION), dict(_ANSWER) | {"tool_calls": calls}]
            messages += [{"role": "tool", "content": "3", "tool_call_id": _CALL["id"]}]
        elif role == "system":
            messages = [{"role": "system", "content": "0"}, *messages]
        named = [message | {"name": _SPEAKER} if message["role"] == role else message for message in messages]
        return _SPEAKER in self._try(*named)

    def _try(self, *messages: dict[str, Any], context: RowContext = NO_CONTEXT) -> str:
        try:
            return self._render(list(messages), context)
        except (ChatTemplateRefused, TemplateTooCostly):
            return ""


_PROBES: Final[dict[str, Callable[[TemplateFeatures], bool]]] = {
    "tool_calls": TemplateFeatures._probe_calls,
    "tools": TemplateFeatures._probe_tools,
    "documents": TemplateFeatures._probe_documents,
    "reasoning_content": TemplateFeatures._probe_reasoning,
}


def _with_text_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def _reasoning_key(source: str) -> str:
    """Return the template's key for the reasoning of a message."""
    if "reasoning_content" in source:
        return "reasoning_content"
    if "thinking" in source.replace("enable_thinking", ""):
        return "thinking"
    return "reasoning" if "reasoning" in source else "reasoning_content"
