"""Roles of messages under the names that files use."""

from collections.abc import Mapping
from typing import Final

CALL_ROLES: Final = frozenset(("function_call", "tool_call", "tool_calls"))
"""Roles of turns that are nothing but calls of tools (ShareGPT and ms-swift): turns of the assistant."""
ROLES: Final[Mapping[str, str]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "tool_response": "tool",
    **dict.fromkeys(CALL_ROLES, "assistant"),
}
"""Ours by the file's."""
