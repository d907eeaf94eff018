"""Prompts that files split over several fields, or write as a transcript."""

from core.datasets.layouts.layout import SourceRow
from core.datasets.layouts.transcripts import looks_like_transcript, read_open_transcript
from core.datasets.messages import as_messages, read_string, read_text
from core.domain.dataset_rows import Message


def instruction_prompt(row: SourceRow) -> list[Message]:
    """Join Alpaca fields as LLaMA-Factory does: `instruction`, then `input` or `context`."""
    instruction = read_string(row, "instruction")
    extra = row.get("input") or row.get("context")
    content = f"{instruction}\n{extra}" if isinstance(extra, str) and extra.strip() else instruction
    return [{"role": "user", "content": content}]


def question_prompt(row: SourceRow, name: str) -> list[Message]:
    """Read one question as a prompt; a transcript becomes its turns."""
    question = read_text(row, name)
    if isinstance(question, str) and looks_like_transcript(question):
        return read_open_transcript(question)
    return as_messages(question, "user")
