"""Prompts that files spread over several fields: instruction and input, system and question, a history of turns."""

from core.datasets.faults import RowFault
from core.datasets.layouts.layout import SourceRow
from core.datasets.layouts.transcripts import looks_like_transcript, read_open_transcript
from core.datasets.messages import as_messages, read_string, read_text, type_name
from core.domain.dataset_rows import Message
from core.domain.issue_codes import IssueCode


def instruction_prompt(row: SourceRow) -> list[Message]:
    """Alpaca fields: `system`, `history` (pairs of turns), `instruction` and `input`, as LLaMA-Factory joins them."""
    instruction = read_string(row, "instruction")
    extra = row.get("input")
    content = f"{instruction}\n{extra}" if isinstance(extra, str) and extra.strip() else instruction
    return [*_system(row), *_history(row), {"role": "user", "content": content}]


def question_prompt(row: SourceRow, name: str) -> list[Message]:
    """`system` and one question; a question that is a transcript becomes its turns."""
    question = read_text(row, name)
    if isinstance(question, str) and looks_like_transcript(question):
        return [*_system(row), *read_open_transcript(question)]
    return [*_system(row), *as_messages(question, "user")]


def _system(row: SourceRow) -> list[Message]:
    system = row.get("system", row.get("system_prompt"))
    return [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []


def _history(row: SourceRow) -> list[Message]:
    history = row.get("history") or []
    if not isinstance(history, list):
        raise RowFault(
            IssueCode.WRONG_TYPE, f"'history' is {type_name(history)}; it must be a list of turns.", "/history"
        )
    messages: list[Message] = []
    for index, turn in enumerate(history):
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
            raise RowFault(
                IssueCode.WRONG_TYPE,
                f"Turn {index} of 'history' must be a list of two texts: what the user said, and the reply.",
                f"/history/{index}",
            )
        messages += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    return messages
