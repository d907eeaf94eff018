"""Division of a rendered conversation: where the prompt ends, and which parts of the response are the assistant's.

All text here is rendered from masked messages (`ControlTokens.mask`): every control token in it is the template's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.domain.dataset_rows import Message, RowContext
from core.tokenization.chat_template import ChatTemplate
from core.tokenization.errors import UnencodableRow, UnusableChatTemplate
from core.tokenization.template_features import NO_CONTEXT

_PROBE = "\ue0047301946825\ue005"
"""An answer that no template treats specially, to see what is written around one."""
MAX_FRAMES = 8
_REASONING_SWITCHES = ("enable_thinking", "thinking")
_CHANGES_PROMPT = "changes the prompt once it is answered."
_OPENS_REASONING = re.compile(r"<think(?:ing)?>\s*\Z")
_CLOSES_REASONING = re.compile(r"</think(?:ing)?>")


@dataclass(frozen=True)
class TextSegment:
    """A part of a response."""

    text: str
    is_scored: bool
    """Written by the assistant: its text, and the control token with which it ends its turn."""
    needs_end: bool = False
    """The template writes no control token after the answer: the tokenizer's end of text is to follow."""


@dataclass(frozen=True)
class _Frame:
    """Text that a template writes around an answer."""

    lead: str
    """Between the generation prompt and the answer."""
    tail: str


class Dialogue:
    """Splits conversations of one chat template.

    A response is what the model is to generate after `render_prompt`: the rendered conversation must go on exactly
    where the prompt ended, or the row is refused.
    """

    def __init__(self, template: ChatTemplate, control_pattern: re.Pattern[str]) -> None:
        self._template = template
        self._control = control_pattern
        self._frames: list[_Frame] = []
        """Those seen so far, so that a row costs one rendering less."""
        self._advice: str | None = None

    def render_prompt(self, prompt: Sequence[Message], context: RowContext = NO_CONTEXT) -> str:
        """Return the text that generation starts from. Raises ChatTemplateRefused, UnencodableRow."""
        self._template.features.require(prompt, context)
        return self._template.render(prompt, add_generation_prompt=True, context=context)

    def split_response(
        self,
        prompt: Sequence[Message],
        rendered_prompt: str,
        response: Sequence[Message],
        context: RowContext = NO_CONTEXT,
    ) -> list[TextSegment]:
        """Return the response's segments, without what follows the end of the last assistant turn.

        Raises:
            ChatTemplateRefused, UnencodableRow: the template cannot take this row.
            UnusableChatTemplate: it cannot take any.
        """
        if not response:
            raise UnencodableRow("A response is empty.")
        turns = [position for position, message in enumerate(response) if message["role"] == "assistant"]
        if not turns or turns[0] != 0:
            raise UnencodableRow("A response starts with a message of the assistant; move what precedes it to prompt.")
        segments: list[TextSegment] = []
        consumed = ""
        for turn in turns:
            history = [*prompt, *response[:turn]]
            before = self.render_prompt(history, context) if turn else rendered_prompt
            if not before.startswith(consumed):
                raise self._rewritten(turn)
            if turn:
                segments.append(TextSegment(before[len(consumed) :], is_scored=False))
            answer, has_end = self._answer(history, response[turn], before, context)
            if turn != turns[-1] and not has_end:
                has_end = True  # the next turn follows as the template has it
            is_scored = _is_scored(response[turn], is_last=turn == turns[-1])
            segments.append(TextSegment(answer, is_scored=is_scored, needs_end=not has_end))
            consumed = before + answer
        if not any(segment.is_scored for segment in segments):
            raise UnencodableRow("No turn of the response is to be trained on.")
        return segments

    def tail(self, prompt: Sequence[Message], response: Sequence[Message]) -> str:
        """Return what the template writes after the end of a conversation's last turn, a newline for instance.

        Raises:
            ChatTemplateRefused, UnencodableRow: the template cannot take this conversation.
        """
        rendered = self.render_prompt(prompt)
        segments = self.split_response(prompt, rendered, response)
        written = rendered + "".join(segment.text for segment in segments)
        whole = self._template.render([*prompt, *response], add_generation_prompt=False, context=NO_CONTEXT)
        return whole[len(written) :] if whole.startswith(written) and not segments[-1].needs_end else ""

    def _answer(
        self, history: Sequence[Message], message: Message, before: str, context: RowContext
    ) -> tuple[str, bool]:
        """Return what the assistant writes after `before`, and whether a control token ends it."""
        if "tool_calls" in message or "reasoning_content" in message:
            return self._whole_answer(history, message, before, context)
        self._template.features.require([message], NO_CONTEXT)
        after = self._template.render([*history, message], add_generation_prompt=False, context=context)
        for frame in self._frames:
            if answer := self._fit(frame, message["content"], before, after):
                return answer
        frame = self._learn_frame(history, before, context)
        for lead in (frame.lead, ""):  # a response that brings its own reasoning has no empty one put before it
            if answer := self._fit(replace(frame, lead=lead), message["content"], before, after):
                self._frames = [frame, *self._frames][:MAX_FRAMES]
                return answer
        return self._reasoned_answer(frame, message["content"], before)

    def _whole_answer(
        self, history: Sequence[Message], message: Message, before: str, context: RowContext
    ) -> tuple[str, bool]:
        """Return all that the template adds for an answer with reasoning or calls."""
        features = self._template.features
        features.require([message], context)
        if "reasoning_content" in message and not features.writes("reasoning_content"):
            return self._answer(history, _with_reasoning_as_text(message, before), before, context)
        after = self._template.render([*history, message], add_generation_prompt=False, context=context)
        if not after.startswith(before):
            raise UnencodableRow(f"The base model's chat template {_CHANGES_PROMPT}")
        written = after[len(before) :]
        if missing := _left_out(message, written):
            raise UnencodableRow(
                f"The base model's chat template leaves out {missing} of this response, so it cannot be trained on."
            )
        last = next((found for found in reversed(list(self._control.finditer(written)))), None)
        if last is None or written[last.end() :].strip():
            return written, False
        return written[: last.end()], True

    def _fit(self, frame: _Frame, content: str, before: str, after: str) -> tuple[str, bool] | None:
        start = before + frame.lead
        if not (after.startswith(start) and after.endswith(frame.tail)):
            return None
        written = after[len(start) : len(after) - len(frame.tail)]
        if written not in (content, content.strip(), content.rstrip(), content.lstrip()):
            return None
        return self._close(frame.lead + written, frame)

    def _close(self, answer: str, frame: _Frame) -> tuple[str, bool]:
        end = self._control.search(frame.tail)
        return answer + (frame.tail[: end.end()] if end else ""), end is not None

    def _learn_frame(self, history: Sequence[Message], before: str, context: RowContext) -> _Frame:
        """Find what the template writes around an answer after this history."""
        probe: Message = {"role": "assistant", "content": _PROBE}
        after = self._template.render([*history, probe], add_generation_prompt=False, context=context)
        if _PROBE not in after:
            raise UnusableChatTemplate("The base model's chat template leaves out what the assistant says.")
        head, _, tail = after.partition(_PROBE)
        if head.startswith(before):
            lead = head[len(before) :]
            if lead.strip() and before == self._template.render(history, add_generation_prompt=False, context=context):
                raise UnusableChatTemplate(
                    "The base model's chat template has no generation prompt: it writes "
                    f"{lead.strip()!r} before an answer, but not when `add_generation_prompt` is set. Add that to its "
                    "chat_template.jinja."
                )
            return _Frame(lead=lead, tail=tail)
        if before.startswith(head) and _OPENS_REASONING.fullmatch(before, len(head)):
            return _Frame(lead="", tail=tail)
        raise UnencodableRow(f"The base model's chat template {_CHANGES_PROMPT}{self._way_out()}")

    def _way_out(self) -> str:
        """Find, by one trial, settings with which a template with a reasoning switch takes ordinary answers."""
        if self._advice is None:
            self._advice = next(filter(None, map(self._try_switch, _REASONING_SWITCHES)), "")
        return self._advice

    def _try_switch(self, name: str) -> str:
        if name not in self._template.variables or name in self._template.kwargs:
            return ""
        switched = Dialogue(self._template.with_kwargs({name: False}), self._control)
        question: list[Message] = [{"role": "user", "content": "1"}]
        try:
            switched.split_response(question, switched.render_prompt(question), [{"role": "assistant", "content": "2"}])
        except (UnencodableRow, UnusableChatTemplate):
            return ""
        return f' Send chat_template_kwargs {{"{name}": false}}.'

    def _reasoned_answer(self, frame: _Frame, content: str, before: str) -> tuple[str, bool]:
        """Return the answer for a template of a reasoning model as written, ended like any other.

        Such templates open the reasoning in the prompt or leave it out of the history.
        """
        is_opened = _OPENS_REASONING.search(before) is not None
        content = content.strip()
        if is_opened:
            content = re.sub(r"\A<think(?:ing)?>\s*", "", content)
        if _CLOSES_REASONING.search(content):
            return self._close(content, frame)
        if is_opened:
            raise UnencodableRow(
                "This base model's prompt opens its reasoning (`<think>`), so a response must hold the reasoning, "
                f"`</think>` and then the answer.{self._way_out()}"
            )
        raise UnencodableRow("The base model's chat template changes the response, so it cannot be trained on.")

    @staticmethod
    def _rewritten(turn: int) -> UnencodableRow:
        return UnencodableRow(
            f"The base model's chat template renders message {turn} of the response otherwise once more follows. Put "
            "all but the last answer into the prompt."
        )


def _is_scored(message: Message, *, is_last: bool) -> bool:
    """Whether a loss is taken on the turn: unless the row says not, or it says nothing and more follows.

    An empty turn that is scored would teach to end at once; rows that an earlier version read do not mark it.
    """
    return message.get("train", True) and (is_last or "tool_calls" in message or bool(message["content"].strip()))


def _with_reasoning_as_text(message: Message, before: str) -> Message:
    """Return messages for a template that opens the reasoning in its prompt and leaves its text to the answer.

    Raises:
        UnencodableRow: the template knows no reasoning.
    """
    if not _OPENS_REASONING.search(before):
        raise UnencodableRow(
            "The base model's chat template does not write the reasoning of a response (`reasoning_content`), so the "
            "row would lose it. Use a base model whose template does, or upload the rows without it."
        )
    text = f"{message.get('reasoning_content', '').strip()}\n</think>\n\n{message['content'].lstrip()}"
    changed: Message = {**message, "content": text}
    del changed["reasoning_content"]
    return changed


def _left_out(message: Message, written: str) -> str | None:
    """Describe what of an answer is missing in the template's text."""
    if message["content"].strip() not in written:
        return "the content"
    if message.get("reasoning_content", "").strip() not in written:
        return "the reasoning"
    if any(call["function"]["name"] not in written for call in message.get("tool_calls", ())):
        return "a tool call"
    return None


def hoist(
    prompt: Sequence[Message], responses: Sequence[Sequence[Message]]
) -> tuple[list[Message], list[list[Message]]]:
    """Move other messages at the start of every response to the prompt's end.

    A conversation to be learned as a whole has an empty prompt; its system and first user messages are the prompt.
    """
    first = responses[0]
    count = next((place for place, message in enumerate(first) if message["role"] == "assistant"), 0)
    if any(list(other[:count]) != list(first[:count]) for other in responses):
        return list(prompt), [list(response) for response in responses]
    return [*prompt, *first[:count]], [list(response[count:]) for response in responses]
