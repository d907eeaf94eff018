"""Layouts in which a row names its chosen and its rejected response."""

from typing import Final

from core.datasets.faults import Note, RowFault
from core.datasets.layouts.columns import PREAMBLE, Role
from core.datasets.layouts.conversations import split_conversations
from core.datasets.layouts.implicit import read_implicit
from core.datasets.layouts.layout import Example, Layout, Reading, SourceRow, first_filled
from core.datasets.layouts.pairs import read_pair
from core.datasets.layouts.prompts import EXTRAS, INSTRUCTION, instruction_prompt, question_prompt
from core.datasets.layouts.transcripts import looks_like_transcript, read_transcripts
from core.datasets.messages.messages import read_field, read_messages, read_text, type_name
from core.datasets.rows.context import add_context
from core.domain.dataset_rows import DatasetKind, Message, Text
from core.domain.issue_codes import IssueCode

_NO_PROMPTS: Final = frozenset(
    ("source", "dataset", "rationale", "reason", "explanation", "comment", "notes", "reference")
)
_MIN_SPACES: Final = 2
_QUESTIONS: Final = ("question", "query", "input", "trajectory", "problem", "context")
"""Names of a prompt, the more telling first."""


def prompt_candidates(row: SourceRow) -> list[str]:
    """Return columns beside chosen and rejected with a sentence or messages, of which one may be the prompt."""
    return [
        name
        for name, value in row.items()
        if name not in ("chosen", "rejected") and name not in _NO_PROMPTS and name not in PREAMBLE and _may_ask(value)
    ]


def _may_ask(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict) and not value[0].keys().isdisjoint(("role", "from"))
    return isinstance(value, str) and value.count(" ") >= _MIN_SPACES


def has(row: SourceRow, *names: str) -> bool:
    return all(name in row for name in names)


def _sides_are(row: SourceRow, *types: type) -> bool:
    return isinstance(row.get("chosen"), types) and isinstance(row.get("rejected"), types)


def _is_explicit(row: SourceRow) -> bool:
    return isinstance(row.get("prompt"), str) and _sides_are(row, str) and not _is_transcript(row)


def _is_conversational(row: SourceRow) -> bool:
    return isinstance(row.get("prompt"), list | dict) and _sides_are(row, list, dict, str)


def _is_ultrafeedback(row: SourceRow) -> bool:
    return isinstance(row.get("prompt"), str) and _sides_are(row, list, dict)


def _is_colossalchat(row: SourceRow) -> bool:
    sides = has(row, "chosen", "rejected") and not _has_transcripts(row)
    return sides and isinstance(row.get("context"), list | dict)


def _is_orca(row: SourceRow) -> bool:
    if "prompt" in row or _has_transcripts(row):
        return False
    return has(row, "chosen", "rejected") and any(name in row for name in _QUESTIONS)


def _is_transcript(row: SourceRow) -> bool:
    """Whether both sides are transcripts, as is required beside a prompt: a single one may be a quotation."""
    if "prompt" not in row:
        return _has_transcripts(row)
    sides = (row.get("chosen"), row.get("rejected"))
    return all(isinstance(side, str) and looks_like_transcript(side) for side in sides)


def _has_transcripts(row: SourceRow) -> bool:
    chosen, rejected = row.get("chosen"), row.get("rejected")
    return (
        isinstance(chosen, str)
        and isinstance(rejected, str)
        and (looks_like_transcript(chosen) or looks_like_transcript(rejected))
    )


def _is_implicit(row: SourceRow) -> bool:
    return "prompt" not in row and _sides_are(row, str) and not prompt_candidates(row)


def _is_implicit_conversational(row: SourceRow) -> bool:
    return "prompt" not in row and _sides_are(row, list)


def read_explicit(row: SourceRow) -> Reading:
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if type(prompt) is type(chosen) is type(rejected) is str:  # nearly always; the rest explains itself
        return Reading((Example(prompt, chosen, rejected),), ())
    return read_pair(read_text(row, "prompt"), read_text(row, "chosen"), read_text(row, "rejected"))


def _read_ultrafeedback(row: SourceRow) -> Reading:
    prompt = read_text(row, "prompt")
    chosen, rejected = _conversation(row, "chosen"), _conversation(row, "rejected")
    if chosen[0]["role"] == rejected[0]["role"] == "assistant":
        return read_pair(prompt, chosen, rejected)
    notes = []
    if isinstance(prompt, str) and all(message["content"] != prompt for message in chosen):
        notes.append(
            Note(
                IssueCode.PROMPT_COLUMN_DIFFERS,
                "'prompt' is none of the messages of 'chosen'; the turns that both conversations share are used.",
                "/prompt",
            )
        )
    return split_conversations(chosen, rejected, notes)


def _read_implicit_conversational(row: SourceRow) -> Reading:
    return split_conversations(_conversation(row, "chosen"), _conversation(row, "rejected"))


def _read_message_columns(row: SourceRow) -> Reading:
    return split_conversations(
        read_messages(read_field(row, "chosen_messages"), "/chosen_messages"),
        read_messages(read_field(row, "rejected_messages"), "/rejected_messages"),
    )


def _conversation(row: SourceRow, name: str) -> list[Message]:
    return read_messages(read_field(row, name), f"/{name}")


def _read_openai(row: SourceRow) -> Reading:
    request = read_field(row, "input")
    if not isinstance(request, dict):
        raise RowFault(
            IssueCode.WRONG_TYPE, f"'input' is {type_name(request)}; it must be an object with 'messages'.", "/input"
        )
    prompt = read_messages(read_field(request, "messages"), "/input/messages")
    chosen = _single_output(row, "preferred_output")
    rejected = _single_output(row, "non_preferred_output")
    reading = read_pair(prompt, chosen, rejected)
    return add_context({"tools": request.get("tools"), "documents": request.get("documents")}, reading)


def _single_output(row: SourceRow, name: str) -> Text:
    messages = read_messages(read_field(row, name), f"/{name}")
    if sum(message["role"] == "assistant" for message in messages) != 1:
        raise RowFault(
            IssueCode.NO_ASSISTANT_REPLY,
            f"'{name}' has {len(messages)} messages; it must have one message of the assistant.",
            f"/{name}",
        )
    return messages


def _read_with_context(prompt_field: str, chosen_field: str, rejected_field: str, row: SourceRow) -> Reading:
    prompt = read_messages(read_field(row, prompt_field), f"/{prompt_field}")
    return read_pair(prompt, read_text(row, chosen_field), read_text(row, rejected_field))


def _read_sharegpt(row: SourceRow) -> Reading:
    return _read_with_context("conversations", "chosen", "rejected", row)


def _read_colossalchat(row: SourceRow) -> Reading:
    return _read_with_context("context", "chosen", "rejected", row)


def _read_turbo(row: SourceRow) -> Reading:
    return _read_with_context("context", "answer_w", "answer_l", row)


def _read_alpaca(row: SourceRow) -> Reading:
    return read_pair(instruction_prompt(row), read_text(row, "chosen"), read_text(row, "rejected"))


def _read_orca(row: SourceRow) -> Reading:
    prompt = question_prompt(row, first_filled(row, _QUESTIONS) or _QUESTIONS[0])
    return read_pair(prompt, read_text(row, "chosen"), read_text(row, "rejected"))


def _read_evals(row: SourceRow) -> Reading:
    return read_pair(
        question_prompt(row, "question"),
        _strip(read_text(row, "answer_matching_behavior")),
        _strip(read_text(row, "answer_not_matching_behavior")),
    )


def _strip(text: Text) -> Text:
    return text.strip() if isinstance(text, str) else text


_KIND: Final = DatasetKind.PREFERENCE

PREFERENCE_LAYOUTS: Final = (
    Layout(
        name="openai",
        kind=_KIND,
        title="OpenAI and Azure preference rows (input, preferred_output, non_preferred_output)",
        columns={"input": Role.PROMPT, "preferred_output": Role.RESPONSE, "non_preferred_output": Role.RESPONSE},
        matches=lambda row: has(row, "preferred_output", "non_preferred_output"),
        read=_read_openai,
    ),
    Layout(
        name="turbo-alignment",
        kind=_KIND,
        title="turbo-alignment rows (context, answer_w, answer_l)",
        columns={"context": Role.PROMPT, "answer_w": Role.RESPONSE, "answer_l": Role.RESPONSE},
        matches=lambda row: has(row, "context", "answer_w", "answer_l"),
        read=_read_turbo,
        source="turbo-llm/turbo-alignment, README.md at 45c01db",
    ),
    Layout(
        name="message-columns",
        kind=_KIND,
        title="two whole conversations (chosen_messages, rejected_messages), as LLaMA-Factory v1 has them",
        columns={"chosen_messages": Role.RESPONSE, "rejected_messages": Role.RESPONSE},
        matches=lambda row: has(row, "chosen_messages", "rejected_messages"),
        read=_read_message_columns,
        source="hiyouga/LLaMA-Factory, data/README.md at 2ad9871",
    ),
    Layout(
        name="sharegpt-ranking",
        kind=_KIND,
        title="LLaMA-Factory ShareGPT ranking rows (conversations, chosen, rejected)",
        columns={"conversations": Role.PROMPT, "chosen": Role.RESPONSE, "rejected": Role.RESPONSE},
        matches=lambda row: has(row, "conversations", "chosen", "rejected"),
        read=_read_sharegpt,
        source="hiyouga/LLaMA-Factory, data/README.md at 2ad9871",
    ),
    Layout(
        name="colossalchat",
        kind=_KIND,
        title="ColossalChat rows (context, chosen, rejected)",
        columns={"context": Role.PROMPT, "chosen": Role.RESPONSE, "rejected": Role.RESPONSE},
        matches=_is_colossalchat,
        read=_read_colossalchat,
        source="hpcaitech/ColossalAI, applications/ColossalChat/examples/README.md at 8806efd",
    ),
    Layout(
        name="alpaca-ranking",
        kind=_KIND,
        title="Alpaca ranking rows (instruction, input, chosen, rejected)",
        columns={**INSTRUCTION, "chosen": Role.RESPONSE, "rejected": Role.RESPONSE},
        one_of=(EXTRAS,),
        matches=lambda row: has(row, "instruction", "chosen", "rejected") and not _has_transcripts(row),
        read=_read_alpaca,
        source="hiyouga/LLaMA-Factory, data/README.md at 2ad9871",
    ),
    Layout(
        name="explicit",
        kind=_KIND,
        title="texts in prompt, chosen and rejected",
        columns={"prompt": Role.PROMPT, "chosen": Role.RESPONSE, "rejected": Role.RESPONSE},
        matches=_is_explicit,
        read=read_explicit,
    ),
    Layout(
        name="conversational",
        kind=_KIND,
        title="messages in prompt, chosen and rejected",
        columns={"prompt": Role.PROMPT, "chosen": Role.RESPONSE, "rejected": Role.RESPONSE},
        matches=_is_conversational,
        read=read_explicit,
    ),
    Layout(
        name="ultrafeedback",
        kind=_KIND,
        title="a prompt text, and whole conversations in chosen and rejected (UltraFeedback, Argilla)",
        columns={"prompt": Role.PROMPT, "chosen": Role.RESPONSE, "rejected": Role.RESPONSE},
        matches=_is_ultrafeedback,
        read=_read_ultrafeedback,
    ),
    Layout(
        name="orca-pairs",
        kind=_KIND,
        title="a question with two responses (question, query, input, trajectory, problem, context)",
        columns={
            **dict.fromkeys(_QUESTIONS, Role.PROMPT),
            "chosen": Role.RESPONSE,
            "rejected": Role.RESPONSE,
        },
        one_of=(_QUESTIONS,),
        matches=_is_orca,
        read=_read_orca,
    ),
    Layout(
        name="hh",
        kind=_KIND,
        title="Anthropic-HH transcripts in chosen and rejected",
        columns={"prompt": Role.PROMPT, "chosen": Role.RESPONSE, "rejected": Role.RESPONSE},
        matches=_is_transcript,
        read=read_transcripts,
    ),
    Layout(
        name="implicit",
        kind=_KIND,
        title="whole texts in chosen and rejected, which begin with the same prompt",
        columns={"chosen": Role.RESPONSE, "rejected": Role.RESPONSE},
        matches=_is_implicit,
        read=read_implicit,
    ),
    Layout(
        name="implicit-conversational",
        kind=_KIND,
        title="whole conversations in chosen and rejected, which begin with the same turns",
        columns={"chosen": Role.RESPONSE, "rejected": Role.RESPONSE},
        matches=_is_implicit_conversational,
        read=_read_implicit_conversational,
    ),
    Layout(
        name="behaviour-evals",
        kind=_KIND,
        title="a question with the answers that match a behaviour or not; the matching one is chosen",
        columns={
            "question": Role.PROMPT,
            "answer_matching_behavior": Role.RESPONSE,
            "answer_not_matching_behavior": Role.RESPONSE,
        },
        matches=lambda row: has(row, "question", "answer_matching_behavior", "answer_not_matching_behavior"),
        read=_read_evals,
    ),
)
