"""Layouts of published datasets, trainers and chat products, each looked up in its documentation or code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from core.datasets.faults import Note, RowFault
from core.datasets.layouts.answers import (
    MAX_ANSWERS,
    RatedAnswer,
    finite_number,
    pair_by_preference,
    pairs_by_merit,
    read_number,
)
from core.datasets.layouts.columns import PREAMBLE, Role
from core.datasets.layouts.conversations import split_conversations
from core.datasets.layouts.layout import Example, Layout, Reading, SourceRow
from core.datasets.layouts.pairs import read_pair, split_reply
from core.datasets.layouts.preamble import add_preamble
from core.datasets.layouts.prompts import EXTRAS, INSTRUCTION, instruction_prompt, question_prompt
from core.datasets.layouts.verdicts import FIRST, SECOND, TIE, read_verdict
from core.datasets.messages.messages import read_field, read_message, read_messages, read_object, read_string, read_text
from core.datasets.rows.context import add_context
from core.domain.dataset_rows import DatasetKind, Message, Text
from core.domain.issue_codes import IssueCode

_KIND: Final = DatasetKind.PREFERENCE
_MAX_PAIRS: Final = MAX_ANSWERS * (MAX_ANSWERS - 1) // 2
_CONVERSATIONS: Final = ("rejected_conversations", "reject_conversations")
_ANSWERS: Final = ("output", "answer")


def _has(*names: str) -> Callable[[SourceRow], bool]:
    return lambda row: all(name in row for name in names)


def _unjudged(detail: str) -> Reading:
    return Reading([], [Note(IssueCode.NOTHING_TO_COMPARE, detail)])


def _both(row: SourceRow, first: str, second: str) -> tuple[Text, Text]:
    return read_text(row, first), read_text(row, second)


def _conversation(row: SourceRow, name: str) -> list[Message]:
    return read_messages(read_field(row, name), f"/{name}")


def _judged_conversations(row: SourceRow, first: str, second: str, verdict: float) -> Reading:
    chosen, rejected = _conversation(row, first), _conversation(row, second)
    if verdict == TIE:
        return pair_by_preference(chosen, "", "", verdict)
    return split_conversations(chosen, rejected) if verdict > 0 else split_conversations(rejected, chosen)


def _read_conversation_columns(row: SourceRow) -> Reading:
    rejected = next((name for name in _CONVERSATIONS if name in row), _CONVERSATIONS[0])
    return split_conversations(_conversation(row, "chosen_conversations"), _conversation(row, rejected))


def _is_nested(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("messages"), list)


def _read_nested(row: SourceRow) -> Reading:
    """Read LMFlow's paired conversations: system prompt and tools stand in the objects, the same on both sides."""
    sides = [read_object(row, name) for name in ("chosen", "rejected")]
    conversations = [_conversation(side, "messages") for side in sides]
    reading = split_conversations(conversations[0], conversations[1])
    around = {name: sides[0][name] for name in ("system", "tools") if sides[0].get(name) not in (None, "", [], [""])}
    if any(sides[1].get(name) != sides[0].get(name) for name in ("system", "tools")):
        raise RowFault(
            IssueCode.DIFFERENT_PROMPTS, "'chosen' and 'rejected' have another system prompt or tools.", "/rejected"
        )
    return add_context(around, add_preamble(around, reading, PREAMBLE))


def _read_rejected_message(row: SourceRow) -> Reading:
    prompt, reply = split_reply(_conversation(row, "messages"), "messages")
    return read_pair(prompt, reply, _conversation(row, "rejected_message"))


def _read_rejected_answer(row: SourceRow) -> Reading:
    prompt = instruction_prompt(row) if "instruction" in row else question_prompt(row, "prompt")
    answer = next((name for name in _ANSWERS if name in row), _ANSWERS[0])
    return read_pair(prompt, read_text(row, answer), read_text(row, "rejected_answer"))


def _turns_of(row: SourceRow) -> list[Message]:
    """Return PaddleNLP's turns: `src` are those of the user, `tgt` the replies before the last question."""
    asked, replied = (_texts(row[name], name) for name in ("src", "tgt"))
    if len(asked) != len(replied) + 1:
        raise RowFault(
            IssueCode.DIFFERENT_PROMPTS,
            f"'src' has {len(asked)} turns and 'tgt' {len(replied)}; the last turn of the prompt must be the user's.",
            "/src",
        )
    turns: list[Message] = []
    for index, text in enumerate(asked):
        turns.append({"role": "user", "content": text})
        if index < len(replied):
            turns.append({"role": "assistant", "content": replied[index]})
    return turns


def _texts(value: object, name: str) -> list[str]:
    items = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(item, str) for item in items):
        raise RowFault(IssueCode.NOT_TEXT, f"'{name}' must be a text, or a list of texts.", f"/{name}")
    return [str(item) for item in items]


def _read_sorted_responses(row: SourceRow) -> Reading:
    responses, ranks = _texts(row["response"], "response"), row["sort"]
    if not isinstance(ranks, list) or len(ranks) != len(responses):
        raise RowFault(IssueCode.INVALID_LABEL, "'sort' must be a list with one number for each response.", "/sort")
    merits = [read_number(rank, f"/sort/{index}") for index, rank in enumerate(ranks)]
    answers = [RatedAnswer(text, merit) for text, merit in zip(responses, merits, strict=True)]
    return pairs_by_merit(_turns_of(row), answers)


def _read_judged_scores(row: SourceRow) -> Reading:
    scores = row["score"]
    if not isinstance(scores, list) or len(scores) != 2:
        raise RowFault(IssueCode.INVALID_LABEL, "'score' must be a list of two numbers, one for each answer.", "/score")
    first, second = (read_number(score, f"/score/{index}") for index, score in enumerate(scores))
    texts = _both(row, "answer1_body", "answer2_body")
    return pair_by_preference(question_prompt(row, "question_body"), *texts, first - second)


def _read_ratings(row: SourceRow) -> Reading:
    first, second = (read_number(read_field(row, name), f"/{name}") for name in ("conv_A_rating", "conv_B_rating"))
    return _judged_conversations(row, "conv_A", "conv_B", first - second)


def _read_named_winner(row: SourceRow) -> Reading:
    """Read a vote of compar:IA, which names the model chosen, or says that both are equal."""
    names = (row.get("model_a_name"), row.get("model_b_name"))
    chosen = row.get("chosen_model_name")
    if row.get("both_equal") is True:
        return _judged_conversations(row, "conversation_a", "conversation_b", TIE)
    if chosen not in names or names[0] == names[1]:
        return _unjudged("'chosen_model_name' names neither of the two models, or both.")
    verdict = FIRST if chosen == names[0] else SECOND
    return _judged_conversations(row, "conversation_a", "conversation_b", verdict)


def _read_search_arena(row: SourceRow) -> Reading:
    return _judged_conversations(row, "messages_a", "messages_b", read_verdict(read_field(row, "winner"), "/winner"))


def _read_preference_collection(row: SourceRow) -> Reading:
    verdict = read_verdict(read_field(row, "orig_preference"), "/orig_preference")
    texts = _both(row, "orig_response_A", "orig_response_B")
    return pair_by_preference(question_prompt(row, "orig_instruction"), *texts, verdict)


def _read_winner(row: SourceRow) -> Reading:
    verdict = read_verdict(read_field(row, "winner"), "/winner")
    texts = _both(row, "response_1", "response_2")
    return pair_by_preference(question_prompt(row, "prompt"), *texts, verdict)


def _read_all_against_all(row: SourceRow) -> Reading:
    chosen, rejected = (_texts(row[name], name) for name in ("chosen", "rejected"))
    return _cross(question_prompt(row, "prompt"), chosen, rejected)


def _read_benchmark_answers(row: SourceRow) -> Reading:
    names = ("chosen", "reject") if "chosen" in row else ("bon_best", "loser_list")
    chosen, rejected = (_answers(row[name]) for name in names)
    return _cross(_conversation(row, "conversation_input"), chosen, rejected)


def _answers(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [read_string(item if isinstance(item, dict) else {}, "answer") for item in items]


def _cross(prompt: list[Message], chosen: list[str], rejected: list[str]) -> Reading:
    """Return a pair of each chosen with each rejected answer."""
    if not chosen or not rejected:
        return _unjudged("There are no answers on one side.")
    if len(chosen) * len(rejected) > _MAX_PAIRS:
        detail = f"{len(chosen)} chosen and {len(rejected)} rejected answers make more than {_MAX_PAIRS} pairs."
        raise RowFault(IssueCode.TOO_MANY_ANSWERS, detail, "/chosen")
    return Reading([read_pair(prompt, good, bad).examples[0] for good in chosen for bad in rejected], [])


def _read_prism(row: SourceRow) -> Reading:
    """Read a conversation with several replies a turn; the next turn follows the chosen one."""
    history = row["conversation_history"]
    if not isinstance(history, list) or not all(isinstance(item, dict) for item in history):
        raise RowFault(
            IssueCode.WRONG_TYPE, "'conversation_history' must be a list of messages.", "/conversation_history"
        )
    path: list[Message] = []
    examples: list[Example] = []
    for _, turn in groupby(sorted(history, key=_turn_number), _turn_number):
        items = list(turn)
        replies = [item for item in items if item.get("role") != "user"]
        path += [read_message(item, "/conversation_history") for item in items if item.get("role") == "user"]
        chosen, others = (
            [read_message(item, "/conversation_history") for item in replies if bool(item.get("if_chosen")) is told]
            for told in (True, False)
        )
        if len(chosen) == 1:
            examples += [example for other in others for example in read_pair(list(path), chosen, [other]).examples]
        path += chosen[:1]
    return Reading(examples, []) if examples else _unjudged("No turn has one chosen reply and others.")


def _turn_number(item: Mapping[str, object]) -> float:
    return finite_number(item.get("turn")) or 0


@dataclass(frozen=True)
class _Columns:
    """Columns of a layout; `needed` are those that a row of it must have."""

    prompt: tuple[str, ...]
    responses: tuple[str, ...]
    verdicts: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    """What is known to say nothing on the pair, such as the text of a judge."""
    more: tuple[str, ...] = ()
    """Columns that a row may lack."""

    @property
    def roles(self) -> dict[str, Role]:
        return {
            **dict.fromkeys(self.prompt, Role.PROMPT),
            **dict.fromkeys(self.responses, Role.RESPONSE),
            **dict.fromkeys(self.verdicts, Role.VERDICT),
            **dict.fromkeys(self.others, Role.PROVENANCE),
        }

    @property
    def needed(self) -> tuple[str, ...]:
        return tuple(name for name in self.roles if name not in (*self.more, *self.others))


def _pairs(
    name: str, title: str, source: str, columns: _Columns, read: Callable[[SourceRow], Reading], **options: Any
) -> Layout:
    matches = options.pop("matches", _has(*columns.needed))
    return Layout(
        name=name, kind=_KIND, title=title, source=source, columns=columns.roles, matches=matches, read=read, **options
    )


PUBLISHED_LAYOUTS: Final = (
    _pairs(
        "conversation-columns",
        "two whole conversations (chosen_conversations, rejected_conversations)",
        "torchtune, docs/source/basics/preference_datasets.rst at 02ca414",
        _Columns((), ("chosen_conversations", *_CONVERSATIONS)),
        _read_conversation_columns,
        one_of=(_CONVERSATIONS,),
        matches=lambda row: "chosen_conversations" in row and any(name in row for name in _CONVERSATIONS),
    ),
    _pairs(
        "nested-conversations",
        "two conversations in objects with messages, system and tools (chosen, rejected)",
        "OptimalScale/LMFlow, docs/source/examples/DATASETS.md at 0235e70",
        _Columns((), ("chosen", "rejected")),
        _read_nested,
        matches=lambda row: all(_is_nested(row.get(name)) for name in ("chosen", "rejected")),
    ),
    _pairs(
        "rejected-message",
        "a conversation, and another last message (messages, rejected_message)",
        "OpenPipe, as dataset tools write it (messages, rejected_message, split)",
        _Columns((), ("messages", "rejected_message"), others=("split",)),
        _read_rejected_message,
    ),
    _pairs(
        "rejected-answer",
        "an instruction or prompt with an answer and a rejected one (rejected_answer)",
        "H2O LLM Studio, llm_studio/python_configs/text_dpo_modeling_config.py at 4b909c3",
        _Columns((*INSTRUCTION, "prompt"), (*_ANSWERS, "rejected_answer")),
        _read_rejected_answer,
        one_of=(EXTRAS, ("instruction", "prompt"), _ANSWERS),
        matches=lambda row: (
            "rejected_answer" in row
            and ("instruction" in row or "prompt" in row)
            and any(isinstance(row.get(name), str) for name in _ANSWERS)
        ),
    ),
    _pairs(
        "sorted-responses",
        "turns and responses with numbers, the larger the better (src, tgt, response, sort)",
        "PaddleNLP, llm/docs/dpo.md at 1760947",
        _Columns(("src", "tgt"), ("response",), ("sort",)),
        _read_sorted_responses,
    ),
    _pairs(
        "preference-collection",
        "two responses with a preference, beside a judge's task (orig_instruction, orig_response_A, orig_preference)",
        "prometheus-eval/Preference-Collection at b408d13",
        _Columns(
            ("orig_instruction",),
            ("orig_response_A", "orig_response_B"),
            ("orig_preference",),
            others=("instruction", "input", "output", "orig_score_A", "orig_score_B"),
        ),
        _read_preference_collection,
    ),
    _pairs(
        "judge-lm",
        "two answers with a list of two scores (question_body, answer1_body, answer2_body, score)",
        "BAAI/JudgeLM-100K; baaivision/JudgeLM, judgelm/data/JudgeLM/judgelm_preprocess.py at be082bd",
        _Columns(("question_body",), ("answer1_body", "answer2_body"), ("score",), others=("text", "reference")),
        _read_judged_scores,
    ),
    _pairs(
        "reward-bench-2",
        "lists of correct and incorrect completions, each compared with each (prompt, chosen, rejected, num_correct)",
        "allenai/reward-bench-2 at 7ff0885",
        _Columns(("prompt",), ("chosen", "rejected"), others=("num_correct", "num_incorrect")),
        _read_all_against_all,
        matches=lambda row: (
            "prompt" in row
            and "num_correct" in row
            and all(isinstance(row.get(name), list) for name in ("chosen", "rejected"))
        ),
    ),
    _pairs(
        "rmb",
        "a conversation with a better and worse answers (conversation_input; chosen, reject; bon_best, loser_list)",
        "RMB-Reward-Model-Benchmark, pairwise and best-of-n sets",
        _Columns(("conversation_input",), ("chosen", "reject", "bon_best", "loser_list")),
        _read_benchmark_answers,
        matches=lambda row: (
            "conversation_input" in row and (_has("chosen", "reject")(row) or _has("bon_best", "loser_list")(row))
        ),
    ),
    _pairs(
        "human-preference",
        "two responses with a winner model_a, model_b or tie (prompt, response_1, response_2, winner)",
        "lmarena-ai/PPE-Human-Preference-V1",
        _Columns(("prompt",), ("response_1", "response_2"), ("winner",)),
        _read_winner,
    ),
    _pairs(
        "stack-exchange-paired",
        "a question with a better and a worse answer (question, response_j, response_k)",
        "lvwerra/stack-exchange-paired; torchtune, stack_exchange_paired_dataset",
        _Columns(("question",), ("response_j", "response_k")),
        lambda row: read_pair(question_prompt(row, "question"), *_both(row, "response_j", "response_k")),
    ),
    _pairs(
        "positive-negative",
        "a prompt with a positive and a negative response (prompt, pos_resp, neg_resp)",
        "CValues-Comparison; OpenRLHF until 2024 (reward_dataset.py)",
        _Columns(("prompt",), ("pos_resp", "neg_resp")),
        lambda row: read_pair(question_prompt(row, "prompt"), *_both(row, "pos_resp", "neg_resp")),
    ),
    _pairs(
        "unified-feedback",
        "two whole conversations with ratings (conv_A, conv_B, conv_A_rating, conv_B_rating)",
        "llm-blender/Unified-Feedback",
        _Columns((), ("conv_A", "conv_B"), ("conv_A_rating", "conv_B_rating")),
        _read_ratings,
    ),
    _pairs(
        "named-winner",
        "two conversations with the name of the model chosen (conversation_a, conversation_b, chosen_model_name)",
        "ministere-culture/comparia-votes",
        _Columns(
            (),
            ("conversation_a", "conversation_b"),
            ("chosen_model_name", "both_equal"),
            others=("model_a_name", "model_b_name"),
            more=("both_equal",),
        ),
        _read_named_winner,
    ),
    _pairs(
        "search-arena",
        "two conversations with a winner (messages_a, messages_b, winner)",
        "lmarena-ai/search-arena-24k",
        _Columns((), ("messages_a", "messages_b"), ("winner",), others=("turn",)),
        _read_search_arena,
    ),
    _pairs(
        "prism",
        "turns with several replies, of which one is chosen (conversation_history)",
        "HannahRoseKirk/prism-alignment",
        _Columns((), ("conversation_history",)),
        _read_prism,
        matches=lambda row: isinstance(row.get("conversation_history"), list),
        message_keys=frozenset(("conversation_history[].if_chosen", "conversation_history[].score")),
    ),
)
