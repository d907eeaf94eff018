"""Layouts of chats whose replies a user has rated, and of demonstrations in other trainers' words."""

from collections.abc import Callable, Mapping
from typing import Final

from core.datasets.faults import Note, RowFault
from core.datasets.layouts.columns import Role
from core.datasets.layouts.layout import Example, Layout, Reading, SourceRow
from core.datasets.layouts.prompts import question_prompt
from core.datasets.layouts.singles import label_of, read_label, read_single, split_first_reply
from core.datasets.messages.messages import read_message, read_text, type_name
from core.domain.dataset_rows import DatasetKind, Message
from core.domain.issue_codes import IssueCode

_RATINGS: Final[Mapping[object, bool]] = {"positive": True, "negative": False}
_SCORES: Final[Mapping[object, bool]] = {1: True, -1: False}


def _items(row: SourceRow, name: str) -> list[Mapping[str, object]]:
    value = row[name]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RowFault(IssueCode.WRONG_TYPE, f"'{name}' is {type_name(value)}; it must be a list of turns.", f"/{name}")
    return value


def _read_rated(name: str, key: str, meanings: Mapping[object, bool]) -> Callable[[SourceRow], Reading]:
    """Return a reader that makes one example of each reply that has a rating."""

    def read(row: SourceRow) -> Reading:
        path: list[Message] = []
        examples: list[Example] = []
        for index, item in enumerate(_items(row, name)):
            message = read_message({k: v for k, v in item.items() if k != key}, f"/{name}/{index}")
            told = item.get(key)
            label = None if isinstance(told, list | dict) else meanings.get(told)
            if label is not None and message["role"] == "assistant" and path:
                examples.append(Example(list(path), [message], None, label))
            path.append(message)
        unrated = Note(IssueCode.NOTHING_TO_COMPARE, "No reply of the conversation was rated.")
        return Reading(examples, [] if examples else [unrated])

    return read


def _has_key(name: str, key: str, meanings: Mapping[object, bool]) -> Callable[[SourceRow], bool]:
    def matches(row: SourceRow) -> bool:
        items = row.get(name)
        return isinstance(items, list) and any(isinstance(item, dict) and _is_told(item.get(key)) for item in items)

    def _is_told(value: object) -> bool:
        return not isinstance(value, bool | list | dict) and value in meanings

    return matches


def _read_turns(row: SourceRow) -> Reading:
    """Read XTuner's turns of `input` and `output`, the first with a `system` perhaps."""
    messages: list[Message] = []
    for index, item in enumerate(_items(row, "conversation")):
        for role, key in (("system", "system"), ("user", "input"), ("assistant", "output")):
            if item.get(key):
                place = f"/conversation/{index}/{key}"
                messages.append(read_message({"role": role, "content": item[key]}, place))
    if [message["role"] for message in messages] == ["assistant"]:
        return Reading([Example("", messages[0]["content"])], [])
    return split_first_reply(messages, "conversation")


def _has_turns(row: SourceRow) -> bool:
    items = row.get("conversation")
    return isinstance(items, list) and bool(items) and isinstance(items[0], dict) and "output" in items[0]


def _has_input_and_output(row: SourceRow) -> bool:
    return "instruction" not in row and all(isinstance(row.get(name), str) for name in ("input", "output"))


def _read_source_target(row: SourceRow) -> Reading:
    asked, replied = (value if isinstance(value, list) else [value] for value in (row["src"], row["tgt"]))
    if len(asked) != len(replied):
        detail = f"'src' has {len(asked)} turns and 'tgt' {len(replied)}; there must be a reply to each."
        raise RowFault(IssueCode.NO_ASSISTANT_REPLY, detail, "/tgt")
    messages = []
    for index, (question, reply) in enumerate(zip(asked, replied, strict=True)):
        messages.append(read_message({"role": "user", "content": question}, f"/src/{index}"))
        messages.append(read_message({"role": "assistant", "content": reply}, f"/tgt/{index}"))
    return split_first_reply(messages, "src")


RATED_LAYOUTS: Final = (
    Layout(
        name="chat-ui",
        kind=DatasetKind.UNPAIRED,
        title="conversations whose replies have a score of 1 or -1 (messages)",
        columns={"messages": Role.RESPONSE},
        matches=_has_key("messages", "score", _SCORES),
        read=_read_rated("messages", "score", _SCORES),
        message_keys=frozenset(("messages[].score",)),
        source="huggingface/chat-ui, src/lib/types/Message.ts at 01b4c43",
    ),
    Layout(
        name="gpt4all",
        kind=DatasetKind.UNPAIRED,
        title="conversations whose replies are rated positive or negative (conversation)",
        columns={"conversation": Role.RESPONSE},
        matches=_has_key("conversation", "rating", _RATINGS),
        read=_read_rated("conversation", "rating", _RATINGS),
        message_keys=frozenset(("conversation[].rating",)),
        source="nomic-ai/gpt4all-datalake, api/app/api_v1/routes/ingest.py at 3f2da45",
    ),
    Layout(
        name="xtuner",
        kind=DatasetKind.DEMONSTRATION,
        title="turns of an input and an output (conversation)",
        columns={"conversation": Role.RESPONSE},
        matches=_has_turns,
        read=_read_turns,
        message_keys=frozenset(f"conversation[].{key}" for key in ("system", "input", "output")),
        source="InternLM/xtuner, docs/en/user_guides/dataset_format.md at 6331bf3",
    ),
    Layout(
        name="input-output",
        kind=DatasetKind.DEMONSTRATION,
        title="an input and its output (input, output)",
        columns={"input": Role.PROMPT, "output": Role.RESPONSE},
        matches=_has_input_and_output,
        read=lambda row: read_single(question_prompt(row, "input"), read_text(row, "output"), None, "output"),
        source="OptimalScale/LMFlow (text2text), docs/source/examples/DATASETS.md at 0235e70",
    ),
    Layout(
        name="input-output-label",
        kind=DatasetKind.UNPAIRED,
        title="an input and its output with a label (input, output, label)",
        columns={"input": Role.PROMPT, "output": Role.RESPONSE, "label": Role.LABEL},
        matches=lambda row: _has_input_and_output(row) and label_of(row.get("label")) is not None,
        read=lambda row: read_single(
            question_prompt(row, "input"), read_text(row, "output"), read_label(row, "label"), "output"
        ),
        source="OpenRLHF, openrlhf/datasets/unpaired_preference_dataset.py at 0537fa3 (names are chosen there)",
    ),
    Layout(
        name="source-target",
        kind=DatasetKind.DEMONSTRATION,
        title="turns of the user and replies (src, tgt)",
        columns={"src": Role.PROMPT, "tgt": Role.RESPONSE},
        matches=lambda row: "src" in row and "tgt" in row and "response" not in row,
        read=_read_source_target,
        source="PaddleNLP, llm/docs/finetune.md at 8ba7eb7",
    ),
)
