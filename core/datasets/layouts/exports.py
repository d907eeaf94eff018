"""Layouts of annotation tools and model services, in which the pair or the label is deeply nested."""

from collections.abc import Mapping, Sequence
from typing import Final

from core.datasets.faults import Note, RowFault
from core.datasets.layouts.answers import RatedAnswer, finite_number, pair_by_preference, pairs_by_merit
from core.datasets.layouts.columns import Role
from core.datasets.layouts.layout import Example, Layout, Reading, SourceRow, first_filled
from core.datasets.layouts.pairs import read_pair
from core.datasets.layouts.prompts import question_prompt
from core.datasets.layouts.verdicts import read_verdict
from core.datasets.messages.messages import read_field, read_message, read_messages, read_string, read_text
from core.domain.dataset_rows import DatasetKind, Message
from core.domain.issue_codes import IssueCode

_KIND: Final = DatasetKind.PREFERENCE
_MAX_TURNS: Final = 1_000
_ANSWER_PAIRS: Final = (("answer1", "answer2"), ("answer_1", "answer_2"), ("response1", "response2"))
_PRODIGY_PROMPTS: Final = ("prompt", "text")
_MIN_VERDICTS: Final = ("comparison", "pairwise", "choice", "preference", "label", "verdict")


def _unjudged(detail: str) -> Reading:
    return Reading([], [Note(IssueCode.NOTHING_TO_COMPARE, detail)])


def _answers_in(row: Mapping[str, object]) -> tuple[str, str] | None:
    return next((pair for pair in _ANSWER_PAIRS if pair[0] in row and pair[1] in row), None)


def _is_label_studio(row: SourceRow) -> bool:
    data = row.get("data")
    return isinstance(row.get("annotations"), list) and isinstance(data, dict) and _answers_in(data) is not None


def _read_label_studio(row: SourceRow) -> Reading:
    data, annotations = row["data"], row["annotations"]
    names = _answers_in(data) if isinstance(data, dict) else None
    if not isinstance(data, dict) or names is None:
        raise RowFault(IssueCode.MISSING_FIELD, "'data' has no two answers ('answer1', 'answer2').", "/data")
    verdicts = (
        [_selected(item) for item in annotations if isinstance(item, dict)] if isinstance(annotations, list) else []
    )
    told = [read_verdict(value, "/annotations") for value in verdicts if value is not None]
    if not told:
        return _unjudged("No annotation of the task says which answer is better.")
    majority = sum(told)
    return pair_by_preference(
        question_prompt(data, "prompt"), read_text(data, names[0]), read_text(data, names[1]), majority
    )


def _selected(annotation: Mapping[str, object]) -> object:
    """Return `left` or `right` of one annotation; None where it was cancelled, or judges something else."""
    results = annotation.get("result")
    if annotation.get("was_cancelled") or not isinstance(results, list):
        return None
    values = [
        result.get("value") for result in results if isinstance(result, dict) and result.get("type") == "pairwise"
    ]
    return next((value["selected"] for value in values if isinstance(value, dict) and value.get("selected")), None)


def _is_label_studio_min(row: SourceRow) -> bool:
    names = _answers_in(row)
    return "prompt" in row and names is not None and any(name in row for name in _MIN_VERDICTS)


def _read_label_studio_min(row: SourceRow) -> Reading:
    first, second = _answers_in(row) or _ANSWER_PAIRS[0]
    name = first_filled(row, _MIN_VERDICTS) or _MIN_VERDICTS[0]
    verdict = read_verdict(read_field(row, name), f"/{name}")
    return pair_by_preference(question_prompt(row, "prompt"), read_text(row, first), read_text(row, second), verdict)


def _parts(value: object, pointer: str) -> str:
    """Return the text of `{"parts": [{"text": …}]}`, or of such a list."""
    parts = value.get("parts", value.get("content")) if isinstance(value, dict) else value
    items = parts if isinstance(parts, list) else [parts]
    texts = [item.get("text") if isinstance(item, dict) else item for item in items]
    if not all(isinstance(text, str) for text in texts):
        raise RowFault(IssueCode.NOT_TEXT, f"{pointer} holds a part that is not text.", pointer)
    return "".join(map(str, texts))


def _turns(value: object, pointer: str) -> list[Message]:
    if not isinstance(value, list):
        raise RowFault(IssueCode.WRONG_TYPE, f"{pointer} must be a list of turns.", pointer)
    found = []
    for index, item in enumerate(value):
        place = f"{pointer}/{index}"
        said = item if isinstance(item, dict) else {}
        found.append(read_message({**said, "role": said.get("role", "user"), "content": _parts(item, place)}, place))
    return found


def _reply(value: object, pointer: str) -> list[Message]:
    """Return an answer in parts as one message, with what else it says."""
    said = value if isinstance(value, dict) else {}
    return [read_message({**said, "role": said.get("role", "assistant"), "content": _parts(value, pointer)}, pointer)]


def _read_vertex(row: SourceRow) -> Reading:
    system = row.get("systemInstruction") or row.get("system_instruction")
    prompt = _turns(row["contents"], "/contents")
    if system:
        prompt = [{"role": "system", "content": _parts(system, "/systemInstruction")}, *prompt]
    completions = row["completions"]
    answers = []
    for index, item in enumerate(completions if isinstance(completions, list) else []):
        score = finite_number(item.get("score")) if isinstance(item, dict) else None
        if score is None:
            raise RowFault(IssueCode.INVALID_LABEL, f"Completion {index} has no score.", f"/completions/{index}/score")
        answers.append(RatedAnswer(_reply(item.get("completion"), f"/completions/{index}"), score))
    return pairs_by_merit(prompt, answers)


def _is_nova(row: SourceRow) -> bool:
    messages = row.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and isinstance(last.get("candidates"), list)


def _read_nova(row: SourceRow) -> Reading:
    messages = row["messages"]
    if not _is_nova(row) or not isinstance(messages, list):
        raise RowFault(IssueCode.MISSING_FIELD, "The last of 'messages' has no 'candidates'.", "/messages")
    prompt = _turns(messages[:-1], "/messages")
    labels = {"preferred": 1.0, "non-preferred": 0.0}
    said = {key: value for key, value in messages[-1].items() if key != "candidates"}
    answers = []
    for index, item in enumerate(messages[-1]["candidates"]):
        place = f"/messages/{len(messages) - 1}/candidates/{index}"
        label = item.get("preferenceLabel") if isinstance(item, dict) else None
        if not isinstance(label, str) or label not in labels:
            raise RowFault(IssueCode.INVALID_LABEL, f"{place} must be 'preferred' or 'non-preferred'.", place)
        answers.append(RatedAnswer(_reply({**said, **item}, place), labels[label]))
    return pairs_by_merit(prompt, answers)


def _read_prodigy(row: SourceRow) -> Reading:
    options, accepted = row["options"], row.get("accept")
    if row.get("answer", "accept") != "accept" or not isinstance(accepted, list) or not accepted:
        return _unjudged("The task was skipped or rejected, so no option is better.")
    if not isinstance(options, list) or not all(isinstance(option, dict) for option in options):
        raise RowFault(IssueCode.WRONG_TYPE, "'options' must be a list of objects with 'id' and 'text'.", "/options")
    answers = [RatedAnswer(read_string(option, "text"), float(option.get("id") in accepted)) for option in options]
    return pairs_by_merit(question_prompt(row, first_filled(row, _PRODIGY_PROMPTS) or _PRODIGY_PROMPTS[-1]), answers)


def _read_summaries(row: SourceRow) -> Reading:
    info, summaries = row["info"], row["summaries"]
    choice = finite_number(row.get("choice"))
    are_two = isinstance(summaries, list) and len(summaries) == 2 and all(isinstance(item, dict) for item in summaries)
    if not isinstance(info, dict) or not isinstance(summaries, list) or not are_two or choice not in (0, 1):
        raise RowFault(IssueCode.INVALID_LABEL, "There must be two 'summaries', and a 'choice' of 0 or 1.", "/choice")
    post = next((name for name in ("post", "article") if info.get(name)), "post")
    title = f"{info['title']}\n\n" if isinstance(info.get("title"), str) and info["title"].strip() else ""
    first, second = (read_string(item, "text").strip() for item in summaries)
    prompt: list[Message] = [{"role": "user", "content": title + read_string(info, post)}]
    return read_pair(prompt, first, second) if choice == 0 else read_pair(prompt, second, first)


def _read_stack_exchange(row: SourceRow) -> Reading:
    answers = row["answers"]
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise RowFault(IssueCode.WRONG_TYPE, "'answers' must be a list of objects.", "/answers")
    read = []
    for index, answer in enumerate(answers):
        score = finite_number(answer.get("pm_score"))
        if score is None:
            raise RowFault(IssueCode.INVALID_LABEL, f"Answer {index} has no 'pm_score'.", f"/answers/{index}/pm_score")
        read.append(RatedAnswer(read_string(answer, "text"), score))
    return pairs_by_merit(question_prompt(row, "question"), read)


def _read_open_webui(row: SourceRow) -> Reading:
    data, meta = row["data"], row["meta"]
    rating = finite_number(data.get("rating")) if isinstance(data, dict) else None
    if rating not in (1, -1):
        return _unjudged("The feedback has no rating of 1 or -1.")
    messages = _history_of(row["snapshot"])
    current = meta.get("message_id") if isinstance(meta, dict) else None
    path: list[Message] = []
    while isinstance(current, str) and isinstance(node := messages.get(current), dict) and len(path) < _MAX_TURNS:
        path.append(read_message(node, f"/snapshot/{current}"))
        current = node.get("parentId")
    path.reverse()
    if len(path) < 2 or path[-1]["role"] != "assistant":
        raise RowFault(IssueCode.NO_ASSISTANT_REPLY, "The rated message is not in the snapshot of the chat.", "/meta")
    return Reading([Example(path[:-1], path[-1:], None, rating == 1)], [])


def _history_of(snapshot: object) -> Mapping[str, object]:
    value = snapshot
    for key in ("chat", "chat", "history", "messages"):
        if isinstance(value, dict) and key in value:
            value = value[key]
    return value if isinstance(value, dict) else {}


def _read_langfuse(row: SourceRow) -> Reading:
    scores = row["scores"]
    values = [item.get("value") for item in scores if isinstance(item, dict)] if isinstance(scores, list) else []
    numbers = {finite_number(float(value) if isinstance(value, bool) else value) for value in values}
    if not numbers <= {0, 1} or len(numbers) != 1:
        return _unjudged("The trace has no score, or not one that is 0 or 1 alone.")
    prompt = _said(row["input"], "/input", "user")
    return Reading([Example(prompt, _said(row["output"], "/output", "assistant"), None, numbers == {1})], [])


def _said(value: object, pointer: str, role: str) -> list[Message]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, dict) and "messages" in value:
        return read_messages(value["messages"], f"{pointer}/messages")
    return read_messages(value, pointer)


def _read_doccano(row: SourceRow) -> Reading:
    labels: Sequence[object] = row["label"] if isinstance(row["label"], list) else []
    if len(labels) != 1 or not isinstance(labels[0], str):
        raise RowFault(IssueCode.INVALID_LABEL, "'label' must be a list of one text, the response.", "/label")
    prompt: list[Message] = [{"role": "user", "content": read_string(row, "text")}]
    return Reading([Example(prompt, [{"role": "assistant", "content": labels[0]}])], [])


def _with(*names: str) -> dict[str, Role]:
    """Declare columns that hold prompt and responses together."""
    return dict.fromkeys(names, Role.RESPONSE)


EXPORT_LAYOUTS: Final = (
    Layout(
        name="label-studio",
        kind=_KIND,
        title="tasks of a pairwise project (data, annotations); left is the lower-numbered answer",
        columns={"data": Role.RESPONSE, "annotations": Role.VERDICT},
        matches=_is_label_studio,
        read=_read_label_studio,
        source="HumanSignal/label-studio, docs/source/guide/export.md at cf0269e (JSON)",
    ),
    Layout(
        name="label-studio-min",
        kind=_KIND,
        title="two numbered answers with a verdict in words, such as left (prompt, answer1, answer2, comparison)",
        columns={
            "prompt": Role.PROMPT,
            **_with(*(name for pair in _ANSWER_PAIRS for name in pair)),
            **dict.fromkeys(_MIN_VERDICTS, Role.VERDICT),
        },
        one_of=(_MIN_VERDICTS, *zip(*_ANSWER_PAIRS, strict=True)),
        matches=_is_label_studio_min,
        read=_read_label_studio_min,
        source="HumanSignal/label-studio, docs/source/guide/export.md at cf0269e (JSON-MIN)",
        open_verdicts=_MIN_VERDICTS,
    ),
    Layout(
        name="vertex",
        kind=_KIND,
        title="turns with two scored completions (contents, completions)",
        columns={
            "systemInstruction": Role.SYSTEM,
            "system_instruction": Role.PROMPT,
            "contents": Role.PROMPT,
            "completions": Role.RESPONSE,
        },
        one_of=(("systemInstruction", "system_instruction"),),
        matches=lambda row: isinstance(row.get("contents"), list) and isinstance(row.get("completions"), list),
        read=_read_vertex,
        source="Vertex AI preference tuning",
    ),
    Layout(
        name="nova",
        kind=_KIND,
        title="messages that end on labelled candidates (messages, candidates)",
        columns=_with("messages"),
        matches=_is_nova,
        read=_read_nova,
        source="Amazon Nova DPO (bedrock-conversation-2024)",
    ),
    Layout(
        name="prodigy",
        kind=_KIND,
        title="options of which some are accepted (text or prompt, options, accept)",
        columns={
            "text": Role.PROMPT,
            "prompt": Role.PROMPT,
            "options": Role.RESPONSE,
            "accept": Role.VERDICT,
            "answer": Role.VERDICT,
        },
        one_of=(_PRODIGY_PROMPTS,),
        matches=lambda row: isinstance(row.get("options"), list) and "accept" in row,
        read=_read_prodigy,
        source="Prodigy, choice interface",
    ),
    Layout(
        name="summaries",
        kind=_KIND,
        title="two summaries of a post, and the number of the better one from 0 (info, summaries, choice)",
        columns={"info": Role.PROMPT, "summaries": Role.RESPONSE, "choice": Role.VERDICT},
        matches=lambda row: all(name in row for name in ("info", "summaries", "choice")),
        read=_read_summaries,
        source="openai/summarize-from-feedback, README.md at 6b75b4f",
    ),
    Layout(
        name="stack-exchange",
        kind=_KIND,
        title="a question with answers scored by votes (question, answers with pm_score)",
        columns={"question": Role.PROMPT, "answers": Role.RESPONSE},
        matches=lambda row: "question" in row and _has_votes(row.get("answers")),
        read=_read_stack_exchange,
        source="stack-exchange-preferences",
    ),
    Layout(
        name="open-webui",
        kind=DatasetKind.UNPAIRED,
        title="feedback on a message of a chat (data, meta, snapshot)",
        columns={"data": Role.LABEL, "meta": Role.LABEL, "snapshot": Role.RESPONSE},
        matches=lambda row: all(name in row for name in ("data", "meta", "snapshot")),
        read=_read_open_webui,
        source="open-webui/open-webui, backend/open_webui/models/feedbacks.py at 83cbec6 (feedback export)",
    ),
    Layout(
        name="langfuse",
        kind=DatasetKind.UNPAIRED,
        title="traces with a score of 0 or 1 (input, output, scores)",
        columns={"input": Role.PROMPT, "output": Role.RESPONSE, "scores": Role.LABEL},
        matches=lambda row: all(name in row for name in ("input", "output")) and _has_values(row.get("scores")),
        read=_read_langfuse,
        source="Langfuse, export of traces",
    ),
    Layout(
        name="doccano",
        kind=DatasetKind.DEMONSTRATION,
        title="a text with its one label as the response (text, label)",
        columns={"text": Role.PROMPT, "label": Role.RESPONSE},
        matches=lambda row: isinstance(row.get("text"), str) and isinstance(row.get("label"), list),
        read=_read_doccano,
        source="doccano/doccano, docs/tutorial.md at 48c132e (JSONL of a sequence-to-sequence project)",
    ),
)


def _has_votes(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "pm_score" in value[0]


def _has_values(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and "value" in item for item in value)
