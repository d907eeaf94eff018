"""Layouts with two answers and a verdict: labels, votes, winners."""

import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import orjson

from core.datasets.faults import Note, RowFault
from core.datasets.layouts.answers import finite_number, pair_by_preference, read_number
from core.datasets.layouts.columns import Role
from core.datasets.layouts.conversations import split_conversations
from core.datasets.layouts.layout import Layout, Reading, SourceRow
from core.datasets.layouts.prompts import EXTRAS, INSTRUCTION, instruction_prompt, question_prompt
from core.datasets.layouts.verdicts import FIRST, NO_VERDICT, SECOND, TIE, WORDS, read_verdict, verdict_key
from core.datasets.messages.messages import read_field, read_messages, read_text
from core.domain.dataset_rows import DatasetKind, Message, Text
from core.domain.issue_codes import IssueCode

_ARENA_WINNERS: Final = ("winner_model_a", "winner_model_b")
_ANNOTATOR = re.compile(r"annotator\d{1,3}")


def _verdict_field(name: str) -> Callable[[SourceRow], float]:
    return lambda row: read_verdict(read_field(row, name), f"/{name}")


def _votes(row: SourceRow) -> float:
    """Return PandaLM's majority of `annotator1`, `annotator2`, …; without one, a tie."""
    names = sorted(name for name in row if _ANNOTATOR.fullmatch(name))
    votes = Counter(read_verdict(row[name], f"/{name}") for name in names)
    verdict, count = votes.most_common(1)[0]
    return verdict if 2 * count > len(names) else TIE


def _index_field(name: str, first: int) -> Callable[[SourceRow], float]:
    """Return a reader of a verdict field of 0 and 1, where `first` stands for the first answer."""

    def decide(row: SourceRow) -> float:
        told = row.get(name)
        if isinstance(told, str) and told in WORDS:
            return read_verdict(told, f"/{name}")
        value = read_number(read_field(row, name), f"/{name}")
        if value not in (0, 1):
            raise RowFault(IssueCode.INVALID_LABEL, f"'{name}' must be 0 or 1.", f"/{name}")
        return FIRST if value == first else SECOND

    return decide


def _negative_prefers_first(name: str) -> Callable[[SourceRow], float]:
    """Read HelpSteer's preference: -3 … 3, below 0 where the first is better."""
    return lambda row: -read_number(read_field(row, name), f"/{name}")


def _scores(row: SourceRow) -> float:
    return read_number(read_field(row, "score_0"), "/score_0") - read_number(read_field(row, "score_1"), "/score_1")


def _ask(name: str) -> Callable[[SourceRow], list[Message]]:
    return lambda row: question_prompt(row, name)


def _ask_input(row: SourceRow) -> list[Message]:
    return instruction_prompt(row) if "instruction" in row else question_prompt(row, "input")


def _arena_votes(row: SourceRow) -> float:
    """Read three columns of 0 and 1; the tie's may be absent."""
    first, second = (read_number(read_field(row, name), f"/{name}") for name in _ARENA_WINNERS)
    if first not in (0, 1) or second not in (0, 1) or first + second > 1:
        raise RowFault(
            IssueCode.INVALID_LABEL, "'winner_model_a' and 'winner_model_b' must be 0 or 1.", "/winner_model_a"
        )
    return first - second


def _ask_arena(row: SourceRow) -> list[Message]:
    prompt = _only_text(row, "prompt")
    return [{"role": "user", "content": prompt}]


def _only_text(row: SourceRow, name: str) -> str:
    """Return the text of a list of one, also where the list is JSON; several turns have no common prompt."""
    value = read_field(row, name)
    if isinstance(value, str) and value.startswith("["):
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    items = value if isinstance(value, list) else [value]
    if len(items) != 1 or not isinstance(items[0], str):
        raise RowFault(
            IssueCode.DIFFERENT_PROMPTS, f"'{name}' has several turns, or none: they share no prompt.", f"/{name}"
        )
    return items[0]


def _ask_webgpt(row: SourceRow) -> list[Message]:
    question = read_field(row, "question")
    return question_prompt(question, "full_text") if isinstance(question, dict) else question_prompt(row, "question")


@dataclass(frozen=True, kw_only=True)
class _Judged:
    name: str
    title: str
    prompt_fields: tuple[str, ...]
    """The first must be there, the others may."""
    prompt: Callable[[SourceRow], list[Message]]
    first: str
    second: str
    verdict: str
    """The field a row must have to be of this layout."""
    decide: Callable[[SourceRow], float]
    verdict_role: Role = Role.VERDICT
    more_verdicts: tuple[str, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    source: str = ""
    text: Callable[[SourceRow, str], Text] = read_text
    is_open: bool = False
    """May the verdict's numbers count from 0 or from 1?"""

    def layout(self) -> Layout:
        required = (self.prompt_fields[0], self.first, self.second, self.verdict)
        return Layout(
            name=self.name,
            kind=DatasetKind.PREFERENCE,
            title=self.title,
            columns={
                **dict.fromkeys(self.prompt_fields, Role.PROMPT),
                self.first: Role.RESPONSE,
                self.second: Role.RESPONSE,
                self.verdict: self.verdict_role,
                **dict.fromkeys(self.more_verdicts, self.verdict_role),
            },
            source=self.source,
            one_of=self.one_of,
            open_verdicts=(self.verdict,) if self.is_open else (),
            matches=lambda row: all(name in row for name in required),
            read=self.read,
        )

    def read(self, row: SourceRow) -> Reading:
        if self.is_open and self.verdict in row and verdict_key(row[self.verdict]) == NO_VERDICT:
            return Reading([], [Note(IssueCode.NOTHING_TO_COMPARE, f"'{self.verdict}' is empty: there is no verdict.")])
        first, second = self.text(row, self.first), self.text(row, self.second)
        return pair_by_preference(self.prompt(row), first, second, self.decide(row))


def _read_arena(row: SourceRow) -> Reading:
    first = read_messages(read_field(row, "conversation_a"), "/conversation_a")
    second = read_messages(read_field(row, "conversation_b"), "/conversation_b")
    verdict = read_verdict(read_field(row, "winner"), "/winner")
    turn = finite_number(row.get("turn"))
    if turn == 1:  # MT-bench: both conversations are whole, but the first replies were judged
        first, second = first[:2], second[:2]
    elif turn is not None and turn > 1 and first[: 2 * int(turn) - 1] != second[: 2 * int(turn) - 1]:
        detail = f"Turn {turn:g} was judged, where the two conversations differ already: there is no common prompt."
        return Reading([], [Note(IssueCode.NOTHING_TO_COMPARE, detail)])
    if verdict == TIE:
        return pair_by_preference(first, "", "", verdict)
    return split_conversations(first, second) if verdict == FIRST else split_conversations(second, first)


_TABLES: Final = (
    _Judged(
        name="pandalm", title="two responses with votes (PandaLM: instruction, response1, response2, annotator1 …)",
        prompt_fields=tuple(INSTRUCTION), prompt=instruction_prompt, one_of=(EXTRAS,),
        first="response1", second="response2", verdict="annotator1", more_verdicts=("annotator2", "annotator3"),
        decide=_votes,
        source="WeOpenML/PandaLM, README.md at 5c0a029",
    ),
    _Judged(
        name="llmbar", title="two outputs with a label 1 or 2 (LLMBar: input, output_1, output_2, label)",
        prompt_fields=("input", "instruction", "context"), prompt=_ask_input, one_of=(EXTRAS,),
        first="output_1", second="output_2", verdict="label", decide=_verdict_field("label"), is_open=True,
        source="princeton-nlp/LLMBar, README.md at df24d11",
    ),
    _Judged(
        name="two-outputs", title="an instruction, two outputs and a label (instruction, output_1, output_2, label)",
        prompt_fields=tuple(INSTRUCTION), prompt=instruction_prompt, one_of=(EXTRAS,),
        source="NCSOFT/offsetbias", first="output_1", second="output_2", verdict="label",
        decide=_verdict_field("label"), is_open=True,
    ),
    _Judged(
        name="alpaca-eval", title="two outputs with a preference (instruction, input, output_1, output_2, preference)",
        prompt_fields=tuple(INSTRUCTION), prompt=instruction_prompt, one_of=(EXTRAS,),
        source="tatsu-lab/alpaca_eval, README.md at a023f53; AlpacaFarm",
        first="output_1", second="output_2", verdict="preference", decide=_verdict_field("preference"), is_open=True,
    ),
    _Judged(
        name="auto-j", title="two numbered responses with a label (prompt, response 1, response 2, label)",
        prompt_fields=("prompt",), prompt=_ask("prompt"), source="GAIR-NLP/auto-j, README.md at 2ae17a3",
        first="response 1", second="response 2", verdict="label", decide=_verdict_field("label"), is_open=True,
    ),
    _Judged(
        name="judge-bench", title="two lettered responses with a label A>B or B>A (question, response_A, response_B)",
        prompt_fields=("question",), prompt=_ask("question"), source="ScalerLab/JudgeBench, README.md at 12a499c",
        first="response_A", second="response_B", verdict="label", decide=_verdict_field("label"), is_open=True,
    ),
    _Judged(
        name="arena-55k", title="two responses with a column per winner (prompt, response_a, winner_model_a …)",
        prompt_fields=("prompt",), prompt=_ask_arena, source="lmsys arena-human-preference-55k",
        first="response_a", second="response_b", verdict="winner_model_a", decide=_arena_votes,
        more_verdicts=("winner_model_b", "winner_tie"), verdict_role=Role.SCORE, text=_only_text,
    ),
    _Judged(
        name="two-responses", title="two responses with a verdict (prompt, response_1, response_2, preference)",
        prompt_fields=("prompt",), prompt=_ask("prompt"),
        first="response_1", second="response_2", verdict="preference",
        decide=_verdict_field("preference"), is_open=True,
    ),
    _Judged(
        name="helpsteer", title="two responses with preference_strength, below 0 for the first (HelpSteer2)",
        prompt_fields=("prompt",), prompt=_ask("prompt"),
        first="response_1", second="response_2", verdict="preference_strength",
        decide=_negative_prefers_first("preference_strength"),
    ),
    _Judged(
        name="helpsteer3", title="two responses with overall_preference, below 0 for the first (HelpSteer3)",
        prompt_fields=("context",), prompt=_ask("context"),
        first="response1", second="response2", verdict="overall_preference",
        decide=_negative_prefers_first("overall_preference"),
    ),
    _Judged(
        name="pku-saferlhf", title="two responses with the number of the better one (PKU-SafeRLHF)",
        prompt_fields=("prompt",), prompt=_ask("prompt"),
        first="response_0", second="response_1", verdict="better_response_id",
        decide=_index_field("better_response_id", first=0),
    ),
    _Judged(
        name="shp", title="two replies to a post, labels 1 for the first (Stanford Human Preferences)",
        prompt_fields=("history",), prompt=_ask("history"),
        first="human_ref_A", second="human_ref_B", verdict="labels", decide=_index_field("labels", first=1),
    ),
    _Judged(
        name="webgpt", title="two answers with scores (WebGPT comparisons)",
        prompt_fields=("question",), prompt=_ask_webgpt, verdict_role=Role.SCORE, more_verdicts=("score_1",),
        first="answer_0", second="answer_1", verdict="score_0", decide=_scores,
    ),
)  # fmt: skip

JUDGED_LAYOUTS: Final = (
    *(table.layout() for table in _TABLES),
    Layout(
        name="arena",
        kind=DatasetKind.PREFERENCE,
        title="two conversations with a winner (Chatbot Arena, MT-Bench human judgments)",
        columns={
            "conversation_a": Role.RESPONSE,
            "conversation_b": Role.RESPONSE,
            "winner": Role.VERDICT,
            "turn": Role.VERDICT_PLACE,
        },
        matches=lambda row: all(name in row for name in ("conversation_a", "conversation_b", "winner")),
        read=_read_arena,
    ),
)
