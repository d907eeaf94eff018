"""Layouts of pairs in unlike columns: a conversation and a rejected reply, a list of two, parts of a reply."""

from typing import Final

from core.datasets.faults import RowFault
from core.datasets.layouts.columns import Role
from core.datasets.layouts.conversations import split_conversations
from core.datasets.layouts.layout import Example, Layout, Reading, SourceRow
from core.datasets.layouts.pairs import read_pair, split_reply
from core.datasets.layouts.prompts import EXTRAS, INSTRUCTION, instruction_prompt, question_prompt
from core.datasets.messages.messages import read_field, read_messages, read_string, read_text
from core.domain.dataset_rows import DatasetKind
from core.domain.issue_codes import IssueCode

_KIND: Final = DatasetKind.PREFERENCE


def _has(row: SourceRow, *names: str) -> bool:
    return all(name in row for name in names)


def _read_rejected_response(row: SourceRow) -> Reading:
    """Read a row of ms-swift: the last reply of `messages` is the chosen one."""
    prompt, reply = split_reply(read_messages(read_field(row, "messages"), "/messages"), "messages")
    return read_pair(prompt, reply, read_text(row, "rejected_response"))


def _read_rejected_messages(row: SourceRow) -> Reading:
    return split_conversations(
        read_messages(read_field(row, "messages"), "/messages"),
        read_messages(read_field(row, "rejected_messages"), "/rejected_messages"),
    )


def _read_messages_pair(row: SourceRow) -> Reading:
    prompt = read_messages(read_field(row, "messages"), "/messages")
    return read_pair(prompt, read_text(row, "chosen"), read_text(row, "rejected"))


def _read_query(row: SourceRow) -> Reading:
    return read_pair(question_prompt(row, "query"), read_text(row, "response"), read_text(row, "rejected_response"))


def _read_response_columns(row: SourceRow) -> Reading:
    prompt = question_prompt(row, "prompt")
    return read_pair(prompt, read_text(row, "chosen_response"), read_text(row, "rejected_response"))


def _read_output_list(row: SourceRow) -> Reading:
    outputs = row["output"]
    if not (isinstance(outputs, list) and len(outputs) == 2 and all(isinstance(text, str) for text in outputs)):
        raise RowFault(
            IssueCode.WRONG_TYPE, "'output' must be a list of two texts: the chosen and the rejected one.", "/output"
        )
    return read_pair(instruction_prompt(row), outputs[0], outputs[1])


def _has_two_outputs(row: SourceRow) -> bool:
    outputs = row.get("output")
    return "instruction" in row and isinstance(outputs, list) and len(outputs) == 2


def _read_steps(row: SourceRow) -> Reading:
    """Read a row of Step-DPO: both sides follow the same steps, which begin the reply; their terms cancel."""
    steps = read_string(row, "initial_reason_steps")
    chosen, rejected = (steps + read_string(row, name) for name in ("chosen", "rejected"))
    return read_pair(question_prompt(row, "prompt"), chosen, rejected)


def _read_lists(row: SourceRow) -> Reading:
    """Read a row of RM-Bench: chosen and rejected in several styles, the same style at the same place."""
    chosen, rejected = read_field(row, "chosen"), read_field(row, "rejected")
    if not (isinstance(chosen, list) and isinstance(rejected, list) and len(chosen) == len(rejected) > 0):
        raise RowFault(IssueCode.WRONG_TYPE, "'chosen' and 'rejected' must be lists of as many texts.", "/chosen")
    prompt = question_prompt(row, "prompt")
    examples: list[Example] = []
    for index, (good, bad) in enumerate(zip(chosen, rejected, strict=True)):
        if not isinstance(good, str) or not isinstance(bad, str):
            raise RowFault(IssueCode.WRONG_TYPE, "'chosen' and 'rejected' must hold texts.", f"/chosen/{index}")
        examples += read_pair(prompt, good, bad).examples
    return Reading(examples, [])


def _are_text_lists(row: SourceRow) -> bool:
    sides = (row.get("chosen"), row.get("rejected"))
    return "prompt" in row and all(isinstance(side, list) and side and isinstance(side[0], str) for side in sides)


PAIRED_LAYOUTS: Final = (
    Layout(
        name="rejected-response",
        kind=_KIND,
        title="a conversation, and a rejected last reply (messages, rejected_response)",
        columns={"messages": Role.PROMPT, "rejected_response": Role.RESPONSE},
        matches=lambda row: isinstance(row.get("messages"), list) and "rejected_response" in row,
        read=_read_rejected_response,
        source="modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md at 3aef58b (DPO, ORPO, RM)",
    ),
    Layout(
        name="rejected-messages",
        kind=_KIND,
        title="two whole conversations (messages, rejected_messages)",
        columns={"messages": Role.RESPONSE, "rejected_messages": Role.RESPONSE},
        matches=lambda row: isinstance(row.get("messages"), list) and "rejected_messages" in row,
        read=_read_rejected_messages,
        source="modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md at 3aef58b",
    ),
    Layout(
        name="messages-pair",
        kind=_KIND,
        title="a prompt in messages, with two replies (messages, chosen, rejected)",
        columns={"messages": Role.PROMPT, "chosen": Role.RESPONSE, "rejected": Role.RESPONSE},
        matches=lambda row: isinstance(row.get("messages"), list) and _has(row, "chosen", "rejected"),
        read=_read_messages_pair,
        source="axolotl-ai-cloud/axolotl, docs/rlhf.qmd at c1743a4 (chat_template.default)",
    ),
    Layout(
        name="query-response",
        kind=_KIND,
        title="a query with a good and a rejected response (query, response, rejected_response)",
        columns={"query": Role.PROMPT, "response": Role.RESPONSE, "rejected_response": Role.RESPONSE},
        matches=lambda row: _has(row, "query", "response", "rejected_response"),
        read=_read_query,
        source="modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md at 3aef58b (query, response)",
    ),
    Layout(
        name="response-columns",
        kind=_KIND,
        title="a prompt with two responses (prompt, chosen_response, rejected_response)",
        columns={"prompt": Role.PROMPT, "chosen_response": Role.RESPONSE, "rejected_response": Role.RESPONSE},
        matches=lambda row: _has(row, "prompt", "chosen_response", "rejected_response"),
        read=_read_response_columns,
        source="NVIDIA/NeMo-Aligner, docs/user-guide/dpo.rst at a507bfa; NeMo RL 0.2; H2O LLM Studio",
    ),
    Layout(
        name="output-list",
        kind=_KIND,
        title="Alpaca rows with two outputs, the better one first (instruction, input, output)",
        columns={**INSTRUCTION, "output": Role.RESPONSE},
        one_of=(EXTRAS,),
        matches=_has_two_outputs,
        read=_read_output_list,
        source="hiyouga/LLaMA-Factory, data/README.md, versions until 2024",
    ),
    Layout(
        name="step-dpo",
        kind=_KIND,
        title="next steps after the same beginning of a reply (prompt, initial_reason_steps, chosen, rejected)",
        columns={
            **dict.fromkeys(("prompt", "initial_reason_steps"), Role.PROMPT),
            **dict.fromkeys(("chosen", "rejected"), Role.RESPONSE),
        },
        matches=lambda row: _has(row, "prompt", "initial_reason_steps", "chosen", "rejected"),
        read=_read_steps,
        source="dvlab-research/Step-DPO, README.md at 15d4c99 (Math-Step-DPO-10K)",
    ),
    Layout(
        name="style-lists",
        kind=_KIND,
        title="lists of chosen and rejected texts, compared place by place (prompt, chosen, rejected)",
        columns={"prompt": Role.PROMPT, "chosen": Role.RESPONSE, "rejected": Role.RESPONSE},
        matches=_are_text_lists,
        read=_read_lists,
        source="THU-KEG/RM-Bench, README.md at 2119ec5",
    ),
)
