"""Prompts that files split over several fields, or write as a transcript."""

from collections.abc import Mapping
from typing import Final

from core.datasets.faults import RowFault
from core.datasets.layouts.columns import Role
from core.datasets.layouts.layout import SourceRow, first_filled, is_filled
from core.datasets.layouts.transcripts import looks_like_transcript, read_open_transcript
from core.datasets.messages.messages import as_messages, read_string, read_text, type_name
from core.domain.dataset_rows import Message
from core.domain.issue_codes import IssueCode

EXTRAS: Final = ("input", "context")
"""What the instruction is about: one of them."""
INSTRUCTION: Final[Mapping[str, Role]] = dict.fromkeys(("instruction", *EXTRAS), Role.PROMPT)
"""Columns that `instruction_prompt` reads."""


def instruction_prompt(row: SourceRow) -> list[Message]:
    """Join Alpaca fields as LLaMA-Factory does: `instruction`, then `input` or `context`."""
    instruction = read_string(row, "instruction")
    name = first_filled(row, EXTRAS)
    extra = row.get(name) if name else None
    if name and is_filled(extra) and not isinstance(extra, str):
        raise RowFault(
            IssueCode.WRONG_TYPE,
            f"'{name}' is {type_name(extra)}; beside 'instruction' it must be a text, which is put after it.",
            f"/{name}",
        )
    content = f"{instruction}\n{extra}" if isinstance(extra, str) and extra.strip() else instruction
    return [{"role": "user", "content": content}]


def question_prompt(row: SourceRow, name: str) -> list[Message]:
    """Read one question as a prompt; a transcript becomes its turns."""
    question = read_text(row, name)
    if isinstance(question, str) and looks_like_transcript(question):
        return read_open_transcript(question)
    return as_messages(question, "user")
