"""Judgement of well-formed examples: faults that only show once prompt and responses are separated."""

import unicodedata
from typing import Final

from core.datasets.faults import Note, RowFault
from core.datasets.layouts.layout import Example
from core.datasets.rows.contents import Contents
from core.domain.dataset_rows import DatasetKind, Message, Text
from core.domain.issue_codes import IssueCode

_HEAD_CHARS: Final = 64


def judge(example: Example, contents: Contents, kind: DatasetKind, long_row_chars: int) -> list[Note]:
    """Return remarks on the example; one whose effect is to set the row aside comes alone."""
    prompt, first, second = contents
    if kind is DatasetKind.RESPONSES:  # what was said is kept, whatever it is
        return _remarks(prompt, first, second, kind, long_row_chars)
    if kind is DatasetKind.PREFERENCE:
        nothing_learnt = _judge_pair(example, first, second)
    elif _ends_blank(example.first):
        nothing_learnt = Note(IssueCode.EMPTY_RESPONSE, "The response is empty, so the row is set aside.", "/response")
    else:
        nothing_learnt = None
    turned = [text for text in (example.first, example.second) if type(text) is list and _has_more_to_judge(text)]
    nothing_learnt = nothing_learnt or _judge_training(turned)
    if nothing_learnt is not None:
        return [nothing_learnt]
    return [*_remarks(prompt, first, second, kind, long_row_chars), *_empty_turns(turned)]


def _judge_pair(example: Example, chosen: str, rejected: str) -> Note | None:
    if example.first == example.second:
        return Note(IssueCode.IDENTICAL_PAIR, "Chosen and rejected are the same, so the row is set aside.", "/rejected")
    if _is_blank(chosen) or (example.first is not chosen and _ends_blank(example.first)):
        return Note(IssueCode.EMPTY_CHOSEN, "The chosen response is empty, so the row is set aside.", "/chosen")
    if _is_blank(rejected) or (example.second is not rejected and _ends_blank(example.second or "")):
        return Note(IssueCode.EMPTY_REJECTED, "The rejected response is empty, so the row is set aside.", "/rejected")
    return None


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _ends_blank(text: Text) -> bool:
    return _is_blank(text) if isinstance(text, str) else is_empty_turn(text[-1])


def is_empty_turn(message: Message) -> bool:
    """Whether the assistant neither says anything nor calls a tool."""
    return _is_blank(message["content"]) and "tool_calls" not in message


def _has_more_to_judge(response: list[Message]) -> bool:
    """Whether the response has several turns, or more than role and content."""
    return len(response) > 1 or len(response[0]) > 2


def _judge_training(responses: list[list[Message]]) -> Note | None:
    """Set aside a response whose turns are all context, as it teaches nothing."""
    for response in responses:
        turns = [message for message in response if message["role"] == "assistant"]
        if turns and not any(message.get("train", True) for message in turns):
            return Note(
                IssueCode.NOTHING_TRAINED,
                "No turn of a response is to be trained on (weight 0, or train: false), so the row is set aside.",
            )
    return None


def _empty_turns(responses: list[list[Message]]) -> list[Note]:
    for response in responses:
        if any(map(_is_empty_answer, response[:-1])):
            detail = "A turn of the assistant within the response is empty; it is not trained on."
            return [Note(IssueCode.EMPTY_TURN, detail)]
    return []


def without_empty_turns(example: Example) -> Example:
    """The example with the assistant's empty turns, but for the last one of each response, not to be trained on."""
    return example._replace(
        first=_with_context_turns(example.first),
        second=None if example.second is None else _with_context_turns(example.second),
    )


def _with_context_turns(response: Text) -> Text:
    if isinstance(response, str):
        return response
    *turns, last = response
    return [*map(_as_context, turns), last]


def _as_context(turn: Message) -> Message:
    """An empty answer as a turn that is not trained on; any other turn as it is."""
    return {**turn, "train": False} if _is_empty_answer(turn) else turn


def _is_empty_answer(message: Message) -> bool:
    return message["role"] == "assistant" and is_empty_turn(message)


def _remarks(prompt: str, first: str, second: str, kind: DatasetKind, long_row_chars: int) -> list[Note]:
    notes = []
    if _is_blank(prompt) and kind is not DatasetKind.DEMONSTRATION:
        notes.append(Note(IssueCode.EMPTY_PROMPT, "The prompt is empty; the row is kept.", "/prompt"))
    if kind is DatasetKind.PREFERENCE and is_nearly_identical(first, second):
        notes.append(
            Note(
                IssueCode.NEARLY_IDENTICAL_PAIR,
                "Chosen and rejected differ only in white space, case or Unicode form; the row is kept.",
                "/rejected",
            )
        )
    num_chars = len(prompt) + max(len(first), len(second))
    if num_chars > long_row_chars:
        notes.append(
            Note(
                IssueCode.LONG_ROW,
                f"Prompt and response have {num_chars:,} characters; the row is kept, but a job sets it aside if it is "
                "over its max_length in tokens.",
            )
        )
    return notes


def is_nearly_identical(first: str, second: str) -> bool:
    """Whether texts are equal apart from white space, case and Unicode compatibility forms."""
    if first[:1] != second[:1]:
        begins = first[:1] + second[:1]
        if begins.isascii() and begins.isalnum() and begins[0].lower() != begins[-1].lower():
            return False  # as most pairs are told apart
    if _level(first[:_HEAD_CHARS])[:16] != _level(second[:_HEAD_CHARS])[:16]:
        return False
    return _level(first) == _level(second)


def _level(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return "".join(text.casefold().split())


def refuse_nul(contents: Contents, kind: DatasetKind) -> None:
    """Raise RowFault where a text holds a NUL character."""
    names = ("prompt", "chosen", "rejected") if kind is DatasetKind.PREFERENCE else ("prompt", "response", "response")
    for name, text in zip(names, contents, strict=True):
        if "\0" in text:
            raise RowFault(IssueCode.NUL_CHARACTER, f"'{name}' holds a NUL character (\\u0000). Remove it.", f"/{name}")
