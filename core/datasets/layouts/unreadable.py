"""Layouts that are known and hold no answers to compare, with what to send instead."""

import re
from collections.abc import Collection, Sequence
from typing import Final

from core.datasets.faults import listed, quoted
from core.datasets.layouts.layout import SourceRow

_ANSWERS: Final = ("candidates", "completions", "responses", "generations")
_TEXTS: Final = ("text", "response", "completion", "output", "answer", "content")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)

_SHAPES: Final = (
    (
        {"prompt", "completions", "labels"},
        "These are stepwise labels (prompt, completions, labels), made for process reward models. Preference training "
        "needs whole responses: prompt, chosen and rejected.",
    ),
    (
        {"message_id", "parent_id"},
        "These are single messages of OpenAssistant trees. Send the export of whole trees (one tree a line), which has "
        "the ranked replies of one prompt together.",
    ),
    (
        {"data_source", "prompt", "reward_model"},
        "These are prompts with a rule that checks answers (verl: data_source, prompt, reward_model), for "
        "reinforcement learning; they hold no responses. Preference training needs prompt, chosen and rejected.",
    ),
    (
        {"question_id", "model_1", "model_2", "g1_winner", "g2_winner"},
        "These are judgments of FastChat's MT-bench (g1_winner, g2_winner); the answers stand in other files. Join "
        "them by question_id and model, and send one row for each pair: prompt, chosen and rejected.",
    ),
    (
        {"doc_id", "doc", "resps"},
        "These are samples that lm-evaluation-harness logged (doc_id, doc, resps): one model's answers without another "
        "one to compare. Send prompt, chosen and rejected; or prompt, completion and label as kind=unpaired.",
    ),
    (
        {"mapping", "current_node"},
        "This is an export of ChatGPT (mapping, current_node): conversations as trees. Write one row a conversation "
        "with the turns from the root to current_node as messages.",
    ),
    (
        {"type", "instances"},
        "The rows stand inside 'instances' (LMFlow). Write them one a line: jq -c '.instances[]' FILE.",
    ),
)
"""Columns that tell a layout, and what is said of it."""


def find_unreadable(names: Collection[str]) -> str | None:
    """Return what to say of rows with these columns, where they are of such a layout."""
    return next((text for needed, text in _SHAPES if needed.issubset(names)), None)


def find_many_scores(rows: Sequence[SourceRow]) -> str | None:
    """Return what to say of rows whose answers have an object of `scores` each (mix-instruct), which name no better."""
    for row in rows:
        for name in _ANSWERS:
            answers = row.get(name)
            first = answers[0] if isinstance(answers, list) and answers else None
            scores = first.get("scores") if isinstance(first, dict) else None
            if isinstance(scores, dict) and scores and not set(_TEXTS).isdisjoint(first or ()):
                return _many_scores(name, [str(score) for score in scores])
    return None


def _many_scores(name: str, scores: list[str]) -> str:
    plain = next((score for score in scores if _PLAIN_NAME.fullmatch(score)), None)
    how = f", as jq does: jq -c '.{name}[] |= (.score = .scores.{plain})' FILE" if plain else ""
    return (
        f"The answers in {quoted(name)} have an object of scores each ({listed(scores)}), and which of them says what "
        f"is better is for you to say. Give each answer that number as its 'score'{how}."
    )
