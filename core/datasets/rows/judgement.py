"""Is a well-formed example worth training on? What only shows once prompt and responses are told apart."""

import unicodedata
from typing import Final

from core.datasets.faults import Note, RowFault
from core.datasets.layouts.layout import Example
from core.datasets.rows.contents import Contents
from core.domain.dataset_rows import DatasetKind, Text
from core.domain.issue_codes import IssueCode

_HEAD_CHARS: Final = 64


def judge(example: Example, contents: Contents, kind: DatasetKind, long_row_chars: int) -> list[Note]:
    """Remarks on the example; one whose effect is to set aside comes alone."""
    prompt, first, second = contents
    if kind is DatasetKind.PREFERENCE:
        nothing_learnt = _judge_pair(example, first, second)
    elif _is_blank(_last_words(example.first)):
        nothing_learnt = Note(IssueCode.EMPTY_RESPONSE, "The response is empty, so the row is set aside.", "/response")
    else:
        nothing_learnt = None
    if nothing_learnt is not None:
        return [nothing_learnt]
    return _remarks(prompt, first, second, kind, long_row_chars)


def _judge_pair(example: Example, chosen: str, rejected: str) -> Note | None:
    if example.first == example.second:
        return Note(IssueCode.IDENTICAL_PAIR, "Chosen and rejected are the same, so the row is set aside.", "/rejected")
    if _is_blank(chosen) or (example.first is not chosen and _is_blank(_last_words(example.first))):
        return Note(IssueCode.EMPTY_CHOSEN, "The chosen response is empty, so the row is set aside.", "/chosen")
    if _is_blank(rejected) or (example.second is not rejected and _is_blank(_last_words(example.second or ""))):
        return Note(IssueCode.EMPTY_REJECTED, "The rejected response is empty, so the row is set aside.", "/rejected")
    return None


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _last_words(text: Text) -> str:
    return text if isinstance(text, str) else text[-1]["content"]


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
    """Equal once white space, case and Unicode compatibility forms are levelled."""
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
    """Raises RowFault where a text holds a NUL character."""
    names = ("prompt", "chosen", "rejected") if kind is DatasetKind.PREFERENCE else ("prompt", "response", "response")
    for name, text in zip(names, contents, strict=True):
        if "\0" in text:
            raise RowFault(IssueCode.NUL_CHARACTER, f"'{name}' holds a NUL character (\\u0000). Remove it.", f"/{name}")
