"""Texts that a chat template has already rendered, parsed back into turns.

Such a text would stand, markers and all, inside the turn of another template. Where every character of it lies in a
turn of a known form, it is certain what was meant; anything else is kept as it is and reported.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from core.datasets.faults import Note
from core.datasets.layouts.layout import Example
from core.datasets.messages.roles import ROLES
from core.datasets.rows.contents import Contents
from core.domain.dataset_rows import Message, Text
from core.domain.issue_codes import IssueCode

RENDERED_MARKS: Final = (
    *(b"<|", b"_of_turn>", b"</s>", b"<eos>", b"[INST]", b"\\u003c", b"<extra_id_", "<｜".encode(), b"<\\uff5c"),
    *(b"Assistant:", b"ASSISTANT:", b"### Response"),
)
"""A line of JSON without any of these holds nothing that this module looks for."""


@dataclass(frozen=True)
class _Form:
    """Notation that one family of templates uses for a turn."""

    turn: re.Pattern[str]
    """A whole turn, with groups `role` and `text`; white space between turns is part of it."""
    opening: re.Pattern[str]
    """An open turn of the assistant at the end, with group `text`: what it says so far."""
    start: str = ""
    """May stand once before the first turn."""


def _form(head: str, end: str, assistant: str, start: str = "") -> _Form:
    """Build a form; `head` and `end` are expressions, `head` has the group `role`."""
    inside = f"(?P<text>(?:(?!{end}).)*)"
    opened = head.replace(r"(?P<role>\w+)", assistant)
    return _Form(
        turn=re.compile(rf"\s*{head}{inside}{end}", re.DOTALL),
        opening=re.compile(rf"\s*{opened}(?P<text>.*)\Z", re.DOTALL),
        start=start,
    )


_FORMS: Final = (
    _form(r"<\|im_start\|>(?P<role>\w+)\n", r"<\|im_end\|>", "assistant"),
    _form(
        r"<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>\n\n", r"<\|eot_id\|>", "assistant", "<|begin_of_text|>"
    ),
    _form(r"<start_of_turn>(?P<role>\w+)\n", r"<end_of_turn>", "model", "<bos>"),
    _form(r"<\|(?P<role>system|user|assistant)\|>\n", r"(?:</s>|<\|end\|>)", "assistant", "<s>"),
)
_MARKS = re.compile(
    r"<\|(?:im_start|start_header_id|user|assistant|system|prompter|START_OF_TURN_TOKEN)\|>|<start_of_turn>|\[INST\]"
    r"|<<SYS>>|<\|start\|>(?:system|user|assistant)|<｜(?:User|Assistant)｜>|<extra_id_[01]>(?:System|User|Assistant)"
)
_TEXT_MARKS: Final = ("<", "[INST]", "Assistant:", "ASSISTANT:", "### Response")
_NEMO_TURN = re.compile(r"(?:\A|\n)<extra_id_[01]>(System|User|Assistant)(?:\n|\Z)")
_OPEN_TURN = re.compile(r"(?:\A|\s)(?:### )?(?:Assistant|ASSISTANT|Response)(?: \(.*\))?:\Z")
_OPEN_TURN_CHARS: Final = 200
"""Most characters of an open turn's name: it is searched for in no more of a text, as each `(` of it costs a look."""
_ANSWERING_TURN = re.compile(r"(?:\A|\n|\s\s)(?:### )?(?:Assistant|ASSISTANT|Response):|\sASSISTANT:")
_ASKING_TURN = re.compile(r"(?:\A|\n|\s\s)(?:### )?(?:Human|User|USER|Instruction):|(?:\A|\. )USER:")
_ENDS: Final = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"),
    *("<end_of_turn>", "<eos>", "</s>", "<｜end▁of▁sentence｜>", "<extra_id_1>"),
)


class Reread(NamedTuple):
    example: Example
    notes: list[Note]


def may_be_rendered(contents: Contents) -> bool:
    """Whether the row may hold a rendered text; cheap, since nearly no row does."""
    said = "\0".join(contents)
    return any(mark in said for mark in _TEXT_MARKS)


def reread(example: Example) -> Reread:
    """Return the example with rendered texts as turns, without spelled-out end tokens."""
    notes: list[Note] = []
    turned = _read_prompt(example) or example
    ended = _without_ends(turned)
    if ended is not turned and turned is example:
        detail = (
            "A response ends on an end token that is spelled out; it is taken off, as the base model's own follows."
        )
        notes.append(Note(IssueCode.END_TOKEN_IN_TEXT, detail))
    if where := _still_rendered(ended):
        detail = (
            f"'{where}' holds the markers of a rendered conversation, and will stand inside another one. Write the "
            "turns as messages."
        )
        notes.append(Note(IssueCode.RENDERED_TEXT, detail, f"/{where}"))
    return Reread(ended, notes)


def read_turns(text: str) -> tuple[list[Message], str | None] | None:
    """Return the turns of a rendered conversation, and the text of an open last turn of the assistant or None.

    None where the text is not wholly made of turns.
    """
    return _read_nemo(text) or next((found for form in _FORMS if (found := _read_form(form, text))), None)


def _read_nemo(text: str) -> tuple[list[Message], str | None] | None:
    """NeMo-Aligner and HelpSteer2: the user's first turn may have no marker, and no turn has an end of its own."""
    if "<extra_id_" not in text:
        return None
    opening, *pieces = _NEMO_TURN.split(text.rstrip().removesuffix("<extra_id_1>"))
    if not pieces:
        return None
    turns: list[Message] = [{"role": "user", "content": opening.strip()}] if opening.strip() else []
    turns += [
        {"role": ROLES[role.lower()], "content": said.strip()}
        for role, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    if any("<extra_id_" in turn["content"] for turn in turns):
        return None
    is_open = turns[-1]["role"] == "assistant" and len(turns) > 1
    return (turns[:-1], pieces[-1]) if is_open else (turns, None)


def _read_form(form: _Form, text: str) -> tuple[list[Message], str | None] | None:
    position = len(form.start) if form.start and text.startswith(form.start) else 0
    messages: list[Message] = []
    while found := form.turn.match(text, position):
        role = ROLES.get(found["role"])
        if role is None:
            return None
        messages.append({"role": role, "content": found["text"].strip()})
        position = found.end()
    if not messages:
        return None
    if not text[position:].strip():
        return messages, None
    opened = form.opening.match(text, position)
    return (messages, opened["text"]) if opened else None


def _contents(text: Text) -> Sequence[str]:
    return (text,) if isinstance(text, str) else [message["content"] for message in text]


def _read_prompt(example: Example) -> Example | None:
    """Return the example with its prompt as turns, where the prompt is one rendered text."""
    prompt, lead = example.prompt, []
    if not isinstance(prompt, str):
        if not prompt or prompt[-1]["role"] != "user" or any(len(message) > 2 for message in prompt):
            return None
        lead, prompt = prompt[:-1], prompt[-1]["content"]
    if not prompt:
        return _read_whole_text(example)
    found = read_turns(prompt)
    if found is None:
        return None
    turns, begun = found
    if begun is None and turns[-1]["role"] == "assistant":
        return None
    first = _reply(begun or "", example.first)
    second = _reply(begun or "", example.second) if example.second is not None else None
    if first is None or (second is None and example.second is not None):
        return None
    return example._replace(prompt=[*lead, *turns], first=first, second=second)


def _read_whole_text(example: Example) -> Example | None:
    """Split a demonstration that is one text: its turns up to the first reply are the prompt."""
    if not isinstance(example.first, str) or example.second is not None:
        return None
    found = read_turns(example.first)
    if found is None:
        return None
    turns = found[0] + ([{"role": "assistant", "content": found[1].strip()}] if found[1] else [])
    first = next((place for place, turn in enumerate(turns) if turn["role"] == "assistant"), 0)
    if first == 0 or turns[-1]["role"] != "assistant":
        return None
    return example._replace(prompt=turns[:first], first=turns[first:])


def _reply(begun: str, text: Text) -> list[Message] | None:
    """Return the response as the assistant's turn; None where it holds turns of its own."""
    if not isinstance(text, str):
        return text if not begun else None
    content = _cut_end(begun + text).strip()
    return None if _MARKS.search(content) else [{"role": "assistant", "content": content}]


def _without_ends(example: Example) -> Example:
    first = _without_end(example.first)
    second = _without_end(example.second) if example.second is not None else None
    if first is example.first and second is example.second:
        return example
    return example._replace(first=first, second=second)


def _without_end(text: Text) -> Text:
    if isinstance(text, str) or not text:
        return _cut_end(text) if isinstance(text, str) else text
    content = text[-1]["content"]
    cut = _cut_end(content)
    return text if cut is content else [*text[:-1], {**text[-1], "content": cut}]


def _cut_end(text: str) -> str:
    """Return the text without an end token at its end."""
    stripped = text.rstrip()
    end = next((end for end in _ENDS if stripped.endswith(end)), None)
    is_struck_out = end == "</s>" and "<s>" in text  # HTML
    return text if end is None or is_struck_out else stripped[: -len(end)].rstrip()


def _still_rendered(example: Example) -> str | None:
    """Return the field that still holds markers."""
    asked = _contents(example.prompt)
    if (asked and _is_spoken(asked[-1])) or any(map(_MARKS.search, asked)):
        return "prompt"
    names = ("chosen", "rejected") if example.second is not None else ("response",)
    if example.prompt == "" and isinstance(example.first, str) and _is_dialogue(example.first):
        return names[0]
    for name, text in zip(names, (example.first, example.second), strict=False):
        if text is not None and any(map(_MARKS.search, _contents(text))):
            return name
    return None


def _is_dialogue(text: str) -> bool:
    """Whether a whole text is turns of named speakers, all of which would be trained on."""
    return _ANSWERING_TURN.search(text) is not None and _ASKING_TURN.search(text) is not None


def _is_spoken(prompt: str) -> bool:
    """Whether the text is a dialogue of named speakers (`Human:`, `USER:`, `### Instruction:`), up to an open reply."""
    said = prompt.rstrip()
    if not said.endswith(":"):
        return False
    is_open = _OPEN_TURN.search(said, max(0, len(said) - _OPEN_TURN_CHARS)) is not None
    return is_open and _ASKING_TURN.search(said) is not None
