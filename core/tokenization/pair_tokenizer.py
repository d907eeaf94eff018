"""Encoding of dataset rows to token ids and scored tokens, the same for training, generation and preview.

The rules:
- The prompt is encoded by itself, exactly as generation sees it; the response's tokens are appended. So training and
  use agree, whatever tokens a joint encoding would have merged across the border.
- Messages are rendered by the base model's chat template. A plain text prompt is one user message, and its response
  one assistant message, where the base model has a template; without one the text is encoded as it stands.
- Every assistant turn is scored: its reasoning, text and calls, and the one control token that ends it. Nothing else
  is: not the prompt, not other roles' turns, not a newline that the template writes after the end, no turn that the row
  leaves out (`train: false`), and no turn that says nothing.
- A row is refused where the template does not write something that the row holds: calls, tools, documents, reasoning,
  the name of a message (but for one that says its role, or that of a tool whose call stands before it).
- No control token comes from the text of a row, only from the template.
- An empty prompt is one start token, so that the first token of the response has a predecessor.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from core.domain.dataset_rows import DemonstrationRow, Message, PreferenceRow, RowContext, Text, UnpairedRow
from core.tokenization.chat_template import ChatTemplate
from core.tokenization.control_tokens import ControlTokens
from core.tokenization.dialogue import Dialogue, TextSegment, hoist
from core.tokenization.errors import UnencodableRow, UnusableChatTemplate, UnusableTokenizer
from core.tokenization.model_files import TokenizerFiles, read_tokenizer_files
from core.tokenization.template_features import NO_CONTEXT
from core.tokenization.template_settings import NO_TEMPLATE
from core.tokenization.text_encoder import TextEncoder

RULES_VERSION = 1
"""Part of every digest: raised whenever the same row would give other ids."""
_QUESTION: Message = {"role": "user", "content": "1"}
_ANSWER: Message = {"role": "assistant", "content": "2"}


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedResponse:
    """R response tokens that follow a prompt."""

    ids: list[int]
    """[R]"""
    scored: list[bool]
    """[R] True where a loss is taken on the token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPair:
    prompt_ids: list[int]
    """[P], at least one"""
    chosen_ids: list[int]
    chosen_scored: list[bool]
    rejected_ids: list[int]
    rejected_scored: list[bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedDemonstration:
    """An encoded demonstration or unpaired row; the label is the row's."""

    prompt_ids: list[int]
    """[P], at least one"""
    response_ids: list[int]
    response_scored: list[bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRow:
    """A row as text, before it is encoded."""

    prompt: str
    """Rendered and masked; empty for no prompt."""
    responses: list[list[TextSegment]]
    is_raw: bool
    """Encoded as it stands, without a template."""


class PairTokenizer:
    """The tokenizer and chat template of one base model. Not for use by two threads at once."""

    def __init__(
        self,
        model_dir: Path,
        files: TokenizerFiles,
        now: datetime,
        template_kwargs: Mapping[str, Any],
        *,
        keeps_tail: bool = False,
    ) -> None:
        self.model_dir = model_dir
        self.now = now
        """The time that the template sees."""
        self.template_kwargs = template_kwargs
        """What the template is given beside messages, such as `enable_thinking`."""
        self.keeps_tail = keeps_tail
        """Whether a response is followed by what the template writes after its end, as a reward model reads it."""
        control = ControlTokens.find(files.tokenizer, files.named_tokens, files.chat_template)
        self._control = control
        self._encoder = TextEncoder(files.tokenizer, control)
        self._dialogue: Dialogue | None = None
        if files.chat_template:
            template = ChatTemplate(files.chat_template, files.named_tokens, lambda: now, template_kwargs)
            self._dialogue = Dialogue(template, control.pattern)
        elif template_kwargs:
            raise UnusableChatTemplate(NO_TEMPLATE)
        self._bos_id = control.ids.get(files.named_tokens.get("bos_token", ""))
        self._eos_id = _end_of_text(files, control)
        self.padding_id = control.ids.get(files.named_tokens.get("pad_token", ""), self._eos_id)
        """Id of the named padding token; the end token where none is named, as TRL takes it."""
        self._start_ids = self._encoder.start_ids
        if not self._start_ids and files.adds_bos and self._bos_id is not None:
            self._start_ids = [self._bos_id]
        self._tail = self._find_tail() if keeps_tail else ""
        self.digest = _digest(files, now, template_kwargs, self._tail)
        """Digest of all that determines the ids of a row."""
        self.eos_ids: tuple[int, ...] = tuple(dict.fromkeys([*self._ends_of_turn(), self._eos_id, *files.end_ids]))
        """Ids at which a generation is complete; the first one ends an assistant turn."""

    @classmethod
    def open(
        cls,
        model_dir: Path,
        *,
        now: datetime | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        keeps_tail: bool = False,
    ) -> "PairTokenizer":
        """Open the tokenizer of a base model's folder, whose files alone it reads.

        `now` is the time that a template sees, by default that of opening (some write the date into every prompt): give
        a job's own, for the same ids and digest on another day. `template_kwargs` are further variables of the
        template, a job's `chat_template_kwargs`. `keeps_tail`: responses go on to the end of what the template writes,
        so that a row's ids are those of the whole conversation that transformers renders.

        Raises:
            UnusableTokenizer, UnusableChatTemplate
        """
        files = read_tokenizer_files(Path(model_dir))
        try:
            return cls(Path(model_dir), files, now or datetime.now(), template_kwargs or {}, keeps_tail=keeps_tail)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise UnusableTokenizer("The base model's tokenizer.json does not describe a tokenizer.") from error

    @property
    def has_chat_template(self) -> bool:
        return self._dialogue is not None

    @property
    def vocab_size(self) -> int:
        return self._encoder.vocab_size

    def encode_prompt(self, prompt: Text, context: RowContext = NO_CONTEXT) -> list[int]:
        """Return ids [P] that generation starts from. Raises UnencodableRow, UnusableChatTemplate."""
        if self._is_raw(prompt) and not context:
            return self._encode_prompt(str(prompt), is_raw=True)
        messages = [self._control.mask(message) for message in _as_messages(prompt, "user")]
        masked = self._control.mask_value(context) if context else context
        return self._encode_prompt(self._need_dialogue().render_prompt(messages, masked), is_raw=False)

    def encode_text(self, text: str) -> list[int]:
        """Return ids [P] of a text that is continued as it stands, without a template. Raises UnencodableRow."""
        return self._encode_prompt(self._control.mask_text(text), is_raw=True)

    def encode_preference(self, row: PreferenceRow) -> EncodedPair:
        """Encode a preference row; raises UnencodableRow, UnusableChatTemplate."""
        split = self.split(row["prompt"], [row["chosen"], row["rejected"]], context_of(row))
        prompt_ids, (chosen, rejected) = self.encode_split(split)
        return EncodedPair(
            prompt_ids=prompt_ids,
            chosen_ids=chosen.ids,
            chosen_scored=chosen.scored,
            rejected_ids=rejected.ids,
            rejected_scored=rejected.scored,
        )

    def encode_demonstration(self, row: DemonstrationRow | UnpairedRow) -> EncodedDemonstration:
        """Encode a row with one response; raises UnencodableRow, UnusableChatTemplate."""
        prompt_ids, (response,) = self.encode_split(self.split(row["prompt"], [row["response"]], context_of(row)))
        return EncodedDemonstration(prompt_ids=prompt_ids, response_ids=response.ids, response_scored=response.scored)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a generation without control tokens."""
        return self._encoder.decode(list(ids))

    def show_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return each token as a person reads it, control tokens by their names."""
        return [self._encoder.show_token(token) for token in ids]

    def token_bytes(self, token_id: int) -> bytes | None:
        """Return the bytes that one token stands for; None for a control token."""
        return self._encoder.token_bytes(token_id)

    def show_text(self, rendered: str) -> str:
        """Return rendered text as a person reads it."""
        return self._control.unmask(rendered)

    def show_response(self, segments: Sequence[TextSegment]) -> str:
        end = self._encoder.show_token(self._eos_id)
        return "".join(self.show_text(part.text) + (end if part.needs_end else "") for part in segments)

    def split(self, prompt: Text, responses: Sequence[Text], context: RowContext = NO_CONTEXT) -> SplitRow:
        """Render a row and split it. Raises UnencodableRow, UnusableChatTemplate."""
        if context:
            context = self._control.mask_value(context)
        elif self._is_raw(prompt) and all(isinstance(response, str) for response in responses):
            raw = [
                [TextSegment(self._control.mask_text(str(text)), is_scored=True, needs_end=True)] for text in responses
            ]
            return SplitRow(prompt=self._control.mask_text(str(prompt)), responses=raw, is_raw=True)
        dialogue = self._need_dialogue()
        messages = [_as_messages(response, "assistant") for response in responses]
        asked, answers = hoist(_as_messages(prompt, "user"), messages)
        asked = [self._control.mask(message) for message in asked]
        masked = [[self._control.mask(message) for message in answer] for answer in answers]
        rendered = dialogue.render_prompt(asked, context)
        split = [dialogue.split_response(asked, rendered, answer, context) for answer in masked]
        if self._tail:
            for segments in split:
                if not segments[-1].needs_end:
                    segments.append(TextSegment(self._tail, is_scored=False))
        return SplitRow(prompt=rendered, responses=split, is_raw=False)

    def encode_split(self, split: SplitRow) -> tuple[list[int], list[EncodedResponse]]:
        """Return ids of the prompt and of each response. Raises UnencodableRow, UnusableChatTemplate."""
        prompt_ids = self._encode_prompt(split.prompt, is_raw=split.is_raw)
        return prompt_ids, [self._encode_response(prompt_ids, split, segments) for segments in split.responses]

    def _is_raw(self, prompt: Text) -> bool:
        return isinstance(prompt, str) and (not prompt or self._dialogue is None)

    def _need_dialogue(self) -> Dialogue:
        if self._dialogue is None:
            raise UnencodableRow(
                "The row holds messages, but the base model has no chat template: give prompt and responses as plain "
                "text, or add a chat_template.jinja to the base model."
            )
        return self._dialogue

    def _encode_prompt(self, rendered: str, *, is_raw: bool) -> list[int]:
        ids = self._encoder.encode(rendered) if rendered else []
        if is_raw:
            ids = self._start_ids + ids
        if not ids:
            ids = [self._eos_id if self._bos_id is None else self._bos_id]
        if self._bos_id is not None and ids[:2] == [self._bos_id, self._bos_id]:
            raise UnusableChatTemplate("The base model's chat template writes the start token twice.")
        return ids

    def _encode_response(self, prompt_ids: list[int], split: SplitRow, segments: list[TextSegment]) -> EncodedResponse:
        ids: list[int] = []
        scored: list[bool] = []
        for segment in segments:
            if split.is_raw and not split.prompt:
                new = self._encoder.encode(segment.text)
            else:
                new = self._encoder.encode_after((ids or prompt_ids)[-1], segment.text)
            if segment.needs_end:
                new = [*new, self._eos_id]
            ids += new
            scored += [segment.is_scored] * len(new)
        return EncodedResponse(ids=ids, scored=scored)

    def _ends_of_turn(self) -> list[int]:
        """Return the control token with which the template ends an answer, if it does."""
        if self._dialogue is None:
            return []
        try:
            rendered = self._dialogue.render_prompt([_QUESTION])
            segment = self._dialogue.split_response([_QUESTION], rendered, [_ANSWER])[-1]
        except UnencodableRow:
            return []
        found = None if segment.needs_end else list(self._control.pattern.finditer(segment.text))[-1]
        return [self._control.ids[found[0]]] if found else []

    def _find_tail(self) -> str:
        try:
            return "" if self._dialogue is None else self._dialogue.tail([_QUESTION], [_ANSWER])
        except UnencodableRow:
            return ""


def context_of(row: RowContext) -> RowContext:
    """Return tools and documents of a row, if it has any."""
    if "tools" not in row and "documents" not in row:
        return NO_CONTEXT
    return cast(RowContext, {key: row[key] for key in ("tools", "documents") if key in row})


def _as_messages(text: Text, role: str) -> list[Message]:
    if isinstance(text, str):
        return [{"role": role, "content": text}] if text else []
    return list(text)


def _end_of_text(files: TokenizerFiles, control: ControlTokens) -> int:
    named = control.ids.get(files.named_tokens.get("eos_token", ""))
    ids = [named] if named is not None else list(files.end_ids)
    if not ids:
        raise UnusableTokenizer("The base model names no end token (`eos_token` in tokenizer_config.json).")
    return ids[0]


def _digest(files: TokenizerFiles, now: datetime, template_kwargs: Mapping[str, Any], tail: str) -> str:
    time = now.isoformat() if "strftime_now" in (files.chat_template or "") else ""
    given = f"\n{json.dumps(template_kwargs, sort_keys=True)}" if template_kwargs else ""
    ended = f"\ntail {json.dumps(tail)}" if tail else ""
    return hashlib.sha256(f"{RULES_VERSION}\n{files.digest}\n{time}{given}{ended}".encode()).hexdigest()
