"""Rows that feedback becomes."""

from typing import Any

import orjson

from core.database.tables.feedback import FeedbackItem, ServedAnswer
from core.domain.arenas.feedback import FeedbackKind

COLUMN = "feedback"
"""Column of the file that says who gave it, when, and on what; jobs do not read it."""


def row_line(item: FeedbackItem, answer: ServedAnswer, other: ServedAnswer | None) -> bytes:
    """Return the line of a file that a piece of feedback becomes; `other` is the worse one of a preference."""
    return orjson.dumps(_row(item, answer, other), option=orjson.OPT_APPEND_NEWLINE)


def _row(item: FeedbackItem, answer: ServedAnswer, other: ServedAnswer | None) -> dict[str, Any]:
    prompt = orjson.loads(answer.prompt)
    told: dict[str, Any] = {
        "id": item.id,
        "kind": item.kind.value,
        "answer_id": item.answer_id,
        "model": answer.model,
        "giver": item.giver,
        "at": item.created_at.isoformat(),
    }
    if item.comment is not None:
        told["comment"] = item.comment
    served = _response(prompt, orjson.loads(answer.answer))
    if item.kind is FeedbackKind.THUMB:
        return {"prompt": prompt, "completion": served, "label": bool(item.is_good), COLUMN: told}
    if item.kind is FeedbackKind.EDIT:
        return {"prompt": prompt, "chosen": _response(prompt, item.edited or ""), "rejected": served, COLUMN: told}
    assert other is not None
    told |= {"other_id": other.id, "other_model": other.model}
    return {"prompt": prompt, "chosen": served, "rejected": _response(prompt, orjson.loads(other.answer)), COLUMN: told}


def _response(prompt: Any, text: str) -> Any:
    """Return a response as the prompt is: a text, or a message of the assistant."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
