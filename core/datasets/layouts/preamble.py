"""Columns before the prompt, in every layout: the system prompt and earlier turns."""

from collections.abc import Mapping
from typing import Final

from core.datasets.faults import Note, RowFault
from core.datasets.layouts.columns import PREAMBLE, Role
from core.datasets.layouts.layout import Example, Reading, SourceRow
from core.datasets.messages.messages import as_messages, read_messages, type_name
from core.domain.dataset_rows import Message, Text
from core.domain.issue_codes import IssueCode

_SYSTEM_NAMES: Final = tuple(name for name, role in PREAMBLE.items() if role is Role.SYSTEM)


def add_preamble(row: SourceRow, reading: Reading, columns: Mapping[str, Role]) -> Reading:
    """Return the reading with the row's system prompt and history before each prompt, all of it as messages.

    `columns`: as the layout declares them; a name that is something else there is left to it. A system prompt or
    history that the prompt begins with already is not repeated. Raises RowFault.
    """
    if PREAMBLE.keys().isdisjoint(row):
        return reading
    system, history = _system(row, columns), _history(row, columns)
    if not system and not history:
        return reading
    notes = list(reading.notes)
    return Reading([_preceded(example, system, history, notes) for example in reading.examples], notes)


def _preceded(example: Example, system: list[Message], history: list[Message], notes: list[Note]) -> Example:
    prompt = as_messages(example.prompt, "user") if example.prompt else []
    own, turns = (prompt[:1], prompt[1:]) if prompt and prompt[0]["role"] == "system" else ([], prompt)
    if own and system and own != system:
        notes.append(
            Note(
                IssueCode.PROMPT_COLUMN_DIFFERS,
                "The system prompt in its own column differs from the one in the messages, which is used.",
                "/system",
            )
        )
    if turns[: len(history)] == history:
        history = []
    second = example.second
    return example._replace(
        prompt=[*(own or system), *history, *turns],
        first=_reply(example.first),
        second=None if second is None else _reply(second),
    )


def _reply(text: Text) -> list[Message]:
    return as_messages(text, "assistant")


def _system(row: SourceRow, columns: Mapping[str, Role]) -> list[Message]:
    for name in _SYSTEM_NAMES:
        value = row.get(name)
        if value is None or columns.get(name) is not Role.SYSTEM:
            continue
        if isinstance(value, list | dict) and value:
            return [{"role": "system", "content": _joined(value, name)}]
        if not isinstance(value, str):
            if not value:
                continue
            raise RowFault(IssueCode.WRONG_TYPE, f"'{name}' is {type_name(value)}; it must be a text.", f"/{name}")
        if value.strip():
            return [{"role": "system", "content": value}]
    return []


def _joined(value: list[object] | dict[str, object], name: str) -> str:
    """Return the text of a system prompt in parts (`[{"text": …}]`), or in a message."""
    items = value if isinstance(value, list) else [value]
    texts = [item.get("text", item.get("content")) if isinstance(item, dict) else item for item in items]
    if not all(isinstance(text, str) for text in texts):
        raise RowFault(IssueCode.WRONG_TYPE, f"'{name}' must be a text, or a list of parts with a text.", f"/{name}")
    return "\n".join(map(str, texts))


def _history(row: SourceRow, columns: Mapping[str, Role]) -> list[Message]:
    history = row.get("history") if columns.get("history") is Role.HISTORY else None
    if not history:
        return []
    if not isinstance(history, list):
        raise RowFault(
            IssueCode.WRONG_TYPE, f"'history' is {type_name(history)}; it must be a list of turns.", "/history"
        )
    if all(isinstance(turn, dict) for turn in history):
        return read_messages(history, "/history")
    messages: list[Message] = []
    for index, turn in enumerate(history):
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
            raise RowFault(
                IssueCode.WRONG_TYPE,
                f"Turn {index} of 'history' must be a message, or a list of two texts: what the user said, and the "
                "reply.",
                f"/history/{index}",
            )
        messages += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    return messages
