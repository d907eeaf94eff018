"""Layouts with more than two answers to a prompt: ranked or scored lists, pairwise verdicts, trees of messages."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

from core.datasets.advice.advice import Advice
from core.datasets.faults import Note, RowFault, listed, quoted
from core.datasets.layouts.answers import (
    MAX_ANSWERS,
    RatedAnswer,
    finite_number,
    pair_by_preference,
    pairs_by_merit,
    read_number,
)
from core.datasets.layouts.columns import Role
from core.datasets.layouts.layout import Example, Layout, Reading, SourceRow, first_filled, is_filled
from core.datasets.layouts.prompts import EXTRAS, instruction_prompt, question_prompt
from core.datasets.layouts.verdicts import read_verdict
from core.datasets.messages.messages import read_field, read_message, read_string, read_text, type_name
from core.domain.dataset_rows import DatasetKind, Message, Text
from core.domain.issue_codes import IssueCode

_LISTS: Final = ("responses", "completions", "answers", "candidates", "generations")
_TEXTS: Final = ("response", "completion", "answer", "text", "output", "content")
_SCORES: Final = ("overall_score", "score", "rating", "reward")
_RANK: Final = "rank"
_MERITS: Final = (_RANK, *_SCORES)
_PARALLEL_SCORES: Final = ("scores", "ratings", "rewards")
_PARALLEL_RANKS: Final = ("ranks", "rankings", "ranking")
_ASKING: Final = ("prompt", "instruction", "question", "context", "input")


def _first_in(row: SourceRow, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in row), None)


def _is_ranked_list(row: SourceRow) -> bool:
    name = first_filled(row, _LISTS)
    answers = row.get(name) if name else None
    if not isinstance(answers, list) or not answers or _first_in(row, _ASKING) is None:
        return False
    if _first_in(row, (*_PARALLEL_SCORES, *_PARALLEL_RANKS)):
        return isinstance(answers[0], str)
    first = answers[0]
    return isinstance(first, dict) and _first_in(first, _MERITS) is not None


def _read_ranked_list(row: SourceRow) -> Reading:
    name = first_filled(row, _LISTS) or _LISTS[0]
    answers = read_field(row, name)
    if not isinstance(answers, list):
        raise RowFault(IssueCode.WRONG_TYPE, f"'{name}' is {type_name(answers)}; it must be a list.", f"/{name}")
    asked = [name for name in _ASKING if is_filled(row.get(name))]
    if "instruction" in asked:
        asked = [name for name in asked if name not in EXTRAS]
    if len(asked) > 1:
        raise RowFault(
            IssueCode.DIFFERENT_PROMPTS,
            f"{listed(asked)} could all be the prompt.",
            f"/{asked[1]}",
            advice=[
                Advice({"ignore": [other for other in asked if other != name]}, f"If {quoted(name)} is the prompt")
                for name in asked
            ],
        )
    ask = asked[0] if asked else first_filled(row, _ASKING) or _ASKING[0]
    prompt = instruction_prompt(row) if ask == "instruction" else question_prompt(row, ask)
    merits = _parallel_merits(row, len(answers))
    if merits is None:
        _require_agreement(answers, name)
        return pairs_by_merit(prompt, [_answer(item, f"/{name}/{index}") for index, item in enumerate(answers)])
    texts = [_text_item(item, f"/{name}/{index}") for index, item in enumerate(answers)]
    return pairs_by_merit(prompt, [RatedAnswer(text, merit) for text, merit in zip(texts, merits, strict=True)])


def _parallel_merits(row: SourceRow, num_answers: int) -> list[float] | None:
    names = [name for group in (_PARALLEL_SCORES, _PARALLEL_RANKS) if (name := first_filled(row, group))]
    if not names:
        return None
    merits = [_merits_in(row, name, num_answers) for name in names]
    if len(merits) > 1 and _contradict(*merits):
        raise RowFault(
            IssueCode.SCORES_DISAGREE,
            f"By '{names[0]}' one answer is better, by '{names[1]}' (1 is the best) the other.",
            f"/{names[1]}",
            advice=[Advice({"ignore": [name]}, f"If '{name}' is not to count") for name in names],
        )
    return merits[0]


def _merits_in(row: SourceRow, name: str, num_answers: int) -> list[float]:
    values = row[name]
    if not isinstance(values, list) or len(values) != num_answers:
        raise RowFault(
            IssueCode.INVALID_LABEL, f"'{name}' must be a list with one number per answer ({num_answers}).", f"/{name}"
        )
    sign = -1 if name in _PARALLEL_RANKS else 1
    return [sign * read_number(value, f"/{name}/{index}") for index, value in enumerate(values)]


def _contradict(scores: list[float], ranks: list[float]) -> bool:
    """Whether an answer is better than another by one list, and worse by the other."""
    pairs = combinations(range(len(scores)), 2)
    return any((scores[one] - scores[two]) * (ranks[one] - ranks[two]) < 0 for one, two in pairs)


def _answer(item: object, pointer: str) -> RatedAnswer:
    if not isinstance(item, dict):
        raise RowFault(IssueCode.WRONG_TYPE, f"{pointer} is {type_name(item)}; it must be an object.", pointer)
    text_field = _first_in(item, _TEXTS)
    if text_field is None:
        raise RowFault(IssueCode.MISSING_FIELD, f"The answer at {pointer} has no text ('response').", pointer)
    score_field = _first_in(item, _MERITS)
    if score_field is None:
        raise RowFault(IssueCode.MISSING_FIELD, f"The answer at {pointer} has no 'rank' or 'score'.", pointer)
    merit = read_number(item[score_field], f"{pointer}/{score_field}")
    return RatedAnswer(read_text(item, text_field), -merit if score_field == _RANK else merit)


def _require_agreement(answers: list[object], name: str) -> None:
    """Refuse answers that one of their numbers says are better, and another one worse."""
    items = [item for item in answers if isinstance(item, dict)]
    there = [field for field in _MERITS if all(finite_number(item.get(field)) is not None for item in items)]
    used, *others = there or [_RANK]
    merits = {
        field: [(finite_number(item[field]) or 0) * (-1 if field == _RANK else 1) for item in items] for field in there
    }
    for other in others:
        if _contradict(merits[used], merits[other]):
            raise RowFault(
                IssueCode.SCORES_DISAGREE,
                f"By '{used}' one answer is better, by '{other}' the other (of ranks, the least is the best).",
                f"/{name}",
                advice=[
                    Advice({"ignore": [f"{name}[].{field}"]}, f"If '{field}' is not to count")
                    for field in (other, used)
                ],
            )


def _unread_in_answers(row: SourceRow) -> tuple[str, Mapping[str, object]]:
    """Return the list's name, and what its answers have beside the text and the numbers that are read."""
    name = first_filled(row, _LISTS) or _LISTS[0]
    answers = row.get(name)
    found: dict[str, object] = {}
    for item in answers if isinstance(answers, list) else ():
        if isinstance(item, dict) and "role" not in item:
            text = _first_in(item, _TEXTS)
            found |= {key: value for key, value in item.items() if key != text and not _is_merit(key, value)}
    return name, found


def _is_merit(key: str, value: object) -> bool:
    return key in _MERITS and finite_number(value) is not None


def _text_item(item: object, pointer: str) -> Text:
    if isinstance(item, str):
        return item
    raise RowFault(IssueCode.WRONG_TYPE, f"{pointer} is {type_name(item)}; it must be a text.", pointer)


def _read_pairwise(row: SourceRow) -> Reading:
    """Read FineGrainedRLHF: `prediction 1` … `prediction 4`, and verdicts in the order 12, 13, 14, 23, 24, 34."""
    names = [name for name in (f"prediction {number}" for number in range(1, MAX_ANSWERS + 1)) if name in row]
    pairs = list(combinations(names, 2))
    verdicts = read_field(row, "preference")
    if not isinstance(verdicts, list) or len(verdicts) != len(pairs):
        raise RowFault(
            IssueCode.INVALID_LABEL,
            f"'preference' must be a list of {len(pairs)} verdicts, one per pair.",
            "/preference",
        )
    prompt: list[Message] = [{"role": "user", "content": _question_with_passages(row)}]
    examples: list[Example] = []
    notes: list[Note] = []
    for index, ((first, second), verdict) in enumerate(zip(pairs, verdicts, strict=True)):
        preference = read_verdict(verdict, f"/preference/{index}")
        reading = pair_by_preference(prompt, read_string(row, first), read_string(row, second), preference)
        examples += reading.examples
        notes += reading.notes
    return Reading(examples, notes)


def _question_with_passages(row: SourceRow) -> str:
    """Join the question and the passages to answer it from: each a title and its sentences."""
    question = read_string(row, "question")
    passages = row.get("passages") or []
    if not isinstance(passages, list):
        return question
    lines = [
        " ".join(part for part in passage if isinstance(part, str)) for passage in passages if isinstance(passage, list)
    ]
    return "\n\n".join([question, *lines])


def _is_tree(row: SourceRow) -> bool:
    root = row.get("prompt")
    return isinstance(root, dict) and "replies" in root


def _read_tree(row: SourceRow) -> Reading:
    """Read an OpenAssistant tree: ranked replies (0 is best) to a user's turn make pairs on the path to it."""
    root = read_field(row, "prompt")
    examples: list[Example] = []
    notes: list[Note] = []
    waiting: list[tuple[object, list[Message], str]] = [(root, [], "/prompt")]
    while waiting:
        node, path, pointer = waiting.pop()
        message, replies = _read_node(node, pointer)
        path = [*path, message]
        if message["role"] == "user":
            reading = _rank_replies(path, replies, pointer)
            examples += reading.examples
            notes += reading.notes
        waiting += [(reply, path, f"{pointer}/replies/{index}") for index, reply in reversed(list(enumerate(replies)))]
    if not examples and not notes:
        notes = [Note(IssueCode.NOTHING_TO_COMPARE, "No turn of the tree has two ranked replies to make a pair of.")]
    return Reading(examples, notes)


def _read_node(node: object, pointer: str) -> tuple[Message, list[object]]:
    if not isinstance(node, dict):
        raise RowFault(IssueCode.WRONG_TYPE, f"{pointer} is {type_name(node)}; it must be a message.", pointer)
    message = read_message({**node, "content": node.get("text")}, pointer)
    replies = node.get("replies") or []
    if not isinstance(replies, list):
        raise RowFault(IssueCode.WRONG_TYPE, f"{pointer}/replies must be a list.", f"{pointer}/replies")
    return message, [reply for reply in replies if not (isinstance(reply, dict) and reply.get("deleted"))]


def _rank_replies(path: list[Message], replies: list[object], pointer: str) -> Reading:
    answers = []
    for index, reply in enumerate(replies):
        if isinstance(reply, dict) and reply.get("role") == "assistant" and reply.get("rank") is not None:
            place = f"{pointer}/replies/{index}"
            message, _ = _read_node(reply, place)
            answers.append(RatedAnswer([message], -read_number(reply["rank"], f"{place}/rank")))
    return pairs_by_merit(path, answers) if len(answers) > 1 else Reading([], [])


RANKED_LAYOUTS: Final = (
    Layout(
        name="message-tree",
        kind=DatasetKind.PREFERENCE,
        title="trees of messages with ranked replies (OpenAssistant)",
        columns={"prompt": Role.PROMPT},
        matches=_is_tree,
        read=_read_tree,
    ),
    Layout(
        name="pairwise-list",
        kind=DatasetKind.PREFERENCE,
        title="several predictions with a verdict per pair (FineGrainedRLHF)",
        columns={
            "question": Role.PROMPT,
            "passages": Role.PROMPT,
            "preference": Role.VERDICT,
            **{f"prediction {number}": Role.RESPONSE for number in range(1, MAX_ANSWERS + 1)},
        },
        matches=lambda row: all(name in row for name in ("question", "prediction 1", "prediction 2", "preference")),
        read=_read_pairwise,
    ),
    Layout(
        name="ranked-list",
        kind=DatasetKind.PREFERENCE,
        title="a list of answers with ranks or scores (UltraFeedback, Nectar …)",
        columns={
            **dict.fromkeys(_ASKING, Role.PROMPT),
            **dict.fromkeys(_LISTS, Role.RESPONSE),
            **dict.fromkeys((*_PARALLEL_SCORES, *_PARALLEL_RANKS), Role.SCORE),
        },
        one_of=(_LISTS, _PARALLEL_SCORES, _PARALLEL_RANKS, EXTRAS),
        matches=_is_ranked_list,
        read=_read_ranked_list,
        unread_in_answers=_unread_in_answers,
    ),
)
