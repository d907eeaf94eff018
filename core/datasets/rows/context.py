"""Tools and documents that a row gives to a chat template, and media that no text model can be given."""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from core.datasets.faults import Note, RowFault, quoted
from core.datasets.layouts.layout import Example, Reading, SourceRow
from core.domain.dataset_rows import Text
from core.domain.issue_codes import IssueCode

CONTEXT_FIELDS: Final = frozenset(("tools", "functions", "documents"))
"""Read in every layout."""
_MEDIA = re.compile(
    r"(?:image|img|picture|photo|video|audio|speech|pixel_value)s?(?:_?(?:path|url|uri|file|byte|b64|base64|data)s?)?",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\A\s*<(?:image|video|audio)>|<(?:image|video|audio)>\s*\Z")
PLACEHOLDERS: Final = (b"<image>", b"<video>", b"<audio>")
"""A line of JSON with none of these, nor an escaped `<`, holds no place of a picture, a video or a sound."""


def refuse_media(row: SourceRow, used: Collection[str]) -> None:
    """Raise RowFault where a column that the layout does not use holds a picture, a video or a sound."""
    for name, value in row.items():
        if value and _is_media_name(name) and name not in used and not isinstance(value, bool | int | float):
            raise RowFault(
                IssueCode.NEEDS_MEDIA,
                f"{quoted(name)} holds what the answers are about, and only text can be trained on. Remove the row, or "
                "the column where the answers do not need it.",
                f"/{name}",
            )


@lru_cache(4096)
def _is_media_name(name: str) -> bool:
    return _MEDIA.fullmatch(name) is not None


def refuse_placeholders(example: Example) -> None:
    """Raise RowFault where a message of the prompt begins or ends with a placeholder such as `<image>`."""
    for content in _contents(example.prompt):
        if "<" in content and (found := _PLACEHOLDER.search(content)):
            raise RowFault(
                IssueCode.NEEDS_MEDIA,
                f"The prompt holds {found[0].strip()}, the place of something that is not text, and only text can be "
                "trained on.",
                "/prompt",
            )


def context_fields(row: SourceRow) -> frozenset[str]:
    """Return the names of the row's fields that `add_context` reads."""
    found = CONTEXT_FIELDS & row.keys()
    if "documents" in found and _read_documents(row["documents"]) is None:
        found -= {"documents"}
    return found


def add_context(row: SourceRow, reading: Reading) -> Reading:
    """Return the reading with the row's tools and documents in each of its examples. Raises RowFault."""
    if CONTEXT_FIELDS.isdisjoint(row):
        return reading
    notes = list(reading.notes)
    tools = _read_tools(row, notes)
    documents = _read_documents(row.get("documents"))
    if tools or documents:
        examples = [
            example._replace(tools=tools or example.tools, documents=documents or example.documents)
            for example in reading.examples
        ]
        return Reading(examples, notes)
    return Reading(reading.examples, notes)


def read_tools(value: object, pointer: str) -> list[dict[str, Any]] | None:
    """Read functions in the form of the OpenAI API; a bare one is wrapped. None where `value` has none.

    Raises:
        RowFault: an entry of the list is no function.
    """
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return None
    return [_read_tool(tool, f"{pointer}/{index}") for index, tool in enumerate(value)]


def _read_tools(row: SourceRow, notes: list[Note]) -> list[dict[str, Any]] | None:
    name = "tools" if row.get("tools") else "functions"
    value = row.get(name)
    if not value or (isinstance(value, str) and not value.strip()):
        return None
    tools = read_tools(value, f"/{name}")
    if tools is None:
        notes.append(Note(IssueCode.TOOLS_IGNORED, f"{quoted(name)} is no list of functions; not used.", f"/{name}"))
    return tools


def _read_tool(tool: object, pointer: str) -> dict[str, Any]:
    if isinstance(tool, str):
        try:
            tool = orjson.loads(tool)
        except orjson.JSONDecodeError:
            tool = None
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(tool, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowFault(IssueCode.INVALID_TOOL_CALL, f"The tool at {pointer} is no function with a 'name'.", pointer)
    return tool if "function" in tool else {"type": "function", "function": tool}


def _read_documents(value: object) -> list[dict[str, Any]] | None:
    """Read documents in the form of retrieval templates; None for a column in any other form."""
    return value if isinstance(value, list) and value and _are_documents(value) else None


def _are_documents(value: list[object]) -> bool:
    return all(isinstance(document, dict) for document in value)


def _contents(text: Text) -> list[str]:
    return [text] if isinstance(text, str) else [message["content"] for message in text if message["role"] == "user"]
