"""Anthropic-HH transcripts (`\\n\\nHuman: … \\n\\nAssistant: …`): one dialogue on both sides up to the last reply.

The prompt is the part that both sides share, back to the last turn marker of the assistant in it. Taking it from the
last marker of one side instead, and slicing both sides by its length, shifts the other side's text wherever a reply
holds a second marker; real files have such rows.
"""

import re
from typing import Final

from core.datasets.faults import Note, RowFault
from core.datasets.layouts.implicit import common_prefix_length
from core.datasets.layouts.layout import Example, Reading, SourceRow
from core.datasets.messages.messages import read_string
from core.domain.dataset_rows import Message
from core.domain.issue_codes import IssueCode

_ASSISTANT: Final = "\n\nAssistant:"
_HUMAN: Final = "\n\nHuman:"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_LINE_OF_TURN = re.compile(r"\n(?=(?:Human|Assistant): )")
_BEGIN = re.compile(r"\s*(Human|Assistant): ")
_ROLES: Final = {"Human": "user", "Assistant": "assistant"}


def looks_like_transcript(text: str) -> bool:
    return _BEGIN.match(text) is not None or text.startswith((_HUMAN, "Human:"))


def read_transcripts(row: SourceRow) -> Reading:
    chosen, rejected = _parted(read_string(row, "chosen")), _parted(read_string(row, "rejected"))
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if _ASSISTANT not in text:
            raise RowFault(
                IssueCode.NO_ASSISTANT_REPLY,
                f"No assistant reply found in '{name}': a transcript has a turn that begins with 'Assistant:'.",
                f"/{name}",
            )
    cut = _prompt_end(chosen, rejected)
    prompt = read_turns(chosen[:cut])
    reply, other_reply = chosen[cut:], rejected[cut:]
    notes = [*_remarks(reply, other_reply), *_remark_on_prompt(row, chosen[:cut])]
    if any(note.code is IssueCode.ENDS_ON_USER_TURN for note in notes):
        return Reading([], notes)
    return Reading([Example(prompt, [_reply(reply)], [_reply(other_reply)])], notes)


def _remark_on_prompt(row: SourceRow, shared: str) -> list[Note]:
    """Remark on a column `prompt` beside transcripts, unless it repeats what they share."""
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or prompt.strip().removesuffix("Assistant:").strip() in shared:
        return []
    detail = "'prompt' is not what the transcripts of 'chosen' and 'rejected' share, which is used."
    return [Note(IssueCode.PROMPT_COLUMN_DIFFERS, detail, "/prompt")]


def _parted(text: str) -> str:
    """Return the transcript with an empty line before each turn, where it has line breaks only."""
    return text if _ASSISTANT in text else _LINE_OF_TURN.sub("\n\n", text)


def _prompt_end(chosen: str, rejected: str) -> int:
    """Return where the replies begin: after the last `Assistant:` that both sides share."""
    shared = chosen[: common_prefix_length(chosen, rejected)]
    begin = shared.rfind(_ASSISTANT)
    if begin < 0 or not shared[:begin].strip():
        raise RowFault(
            IssueCode.DIFFERENT_PROMPTS,
            "'chosen' and 'rejected' are not replies to the same prompt: the transcripts share no turn up to an "
            "'Assistant:'.",
            "/rejected",
        )
    return begin + len(_ASSISTANT)


def read_turns(transcript: str) -> list[Message]:
    """Read the dialogue up to an open `Assistant:` as messages.

    The marker at the very end opens the reply and is no message; a text before the first marker is the user's.
    """
    pieces = _TURN.split("\n\n" + transcript.strip())
    opening = pieces[0].strip()
    messages: list[Message] = [{"role": "user", "content": opening}] if opening else []
    for speaker, text in zip(pieces[1:-2:2], pieces[2:-2:2], strict=True):
        messages.append({"role": _ROLES[speaker], "content": text.strip()})
    return messages


def read_open_transcript(transcript: str) -> list[Message]:
    """Read a prompt written as a transcript, with or without the open `Assistant:` at its end."""
    text = transcript.rstrip()
    return read_turns(text if text.endswith(_ASSISTANT) else text + _ASSISTANT)


def _reply(text: str) -> Message:
    return {"role": "assistant", "content": text.strip()}


def _remarks(chosen: str, rejected: str) -> list[Note]:
    notes = []
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if _last_speaker(text) == "Human":
            notes.append(
                Note(
                    IssueCode.ENDS_ON_USER_TURN,
                    f"'{name}' ends on a turn of the human, so it has no reply to compare.",
                    f"/{name}",
                )
            )
        elif _TURN.search(text):
            notes.append(
                Note(
                    IssueCode.TURN_MARKER_IN_RESPONSE,
                    f"'{name}' has a further turn marker ('Assistant:' or 'Human:') in the reply; it is kept as text.",
                    f"/{name}",
                )
            )
    return notes


def _last_speaker(text: str) -> str | None:
    markers = _TURN.findall(text)
    return markers[-1] if markers else None
