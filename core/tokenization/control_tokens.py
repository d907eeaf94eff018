"""Separation of control tokens from text that looks like them.

A control token (end of turn, start of text, a role's header) may come from the chat template only, never from what a
user wrote. So the tokenizer is loaded with its control tokens renamed to secrets of this process: text cannot contain
them. While a template renders, look-alikes in the messages are replaced by placeholders; then the control tokens that
remain in the rendered text are the template's own, and are written as secrets before encoding.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from core.domain.dataset_rows import Message

_DELIMITER = re.compile(r"<\|.+\|>|<｜.+｜>|\[/?[A-Z_]+\]|</?(?=[a-z_]*turn)[a-z_]++>|</?s>")
"""What an added token that is not declared special must look like to delimit turns, rather than be vocabulary such as
`<think>` or a run of spaces."""


@dataclass(frozen=True)
class ControlTokens:
    """The control tokens of one tokenizer, with this process's secret names for them."""

    ids: Mapping[str, int]
    """Token id by the token's own text."""
    nonce: str
    """Digits: no template's `lower` or `trim` changes them."""

    @classmethod
    def find(cls, tokenizer: Mapping[str, Any], named: Mapping[str, str], template: str | None) -> "ControlTokens":
        """Find tokens of a parsed `tokenizer.json`: special, named by the configuration, or in the template."""
        added = {token["content"]: token for token in tokenizer.get("added_tokens", ())}
        ids = {
            text: int(token["id"])
            for text, token in added.items()
            if token["special"] or (template and text in template and _DELIMITER.fullmatch(text))
        }
        vocabulary = _vocabulary(tokenizer)
        for text in named.values():
            token_id = added[text]["id"] if text in added else vocabulary.get(text)
            if token_id is not None:
                ids[text] = int(token_id)
        ids.pop("", None)
        return cls(ids, str(secrets.randbelow(10**15)).zfill(15))

    def secret(self, text: str) -> str:
        return f"\ue000{self.nonce}{self._order[text]:06d}\ue001"

    def mask(self, message: Message) -> Message:
        """Return the message with placeholders for all that could become a control token once rendered."""
        if len(message) == 2:
            return {"role": self.mask_text(message["role"]), "content": self.mask_text(message["content"])}
        return cast(Message, self.mask_value(message))

    def mask_value(self, value: Any) -> Any:
        """Return a JSON value with all its texts masked, keys included."""
        if isinstance(value, str):
            return self.mask_text(value)
        if isinstance(value, dict):
            return {self.mask_text(key): self.mask_value(item) for key, item in value.items()}
        return [self.mask_value(item) for item in value] if isinstance(value, list) else value

    def mask_text(self, text: str) -> str:
        if not text or not self.ids:
            return text
        masked = self.pattern.sub(lambda match: self._placeholder(self._order[match[0]]), text)
        # Text that ends (or starts) with a part of a control token could be completed by the template.
        if any(text[-length:] in self._heads for length in range(1, self._longest)):
            masked += self._placeholder(len(self.ids))
        if any(text[:length] in self._tails for length in range(1, self._longest)):
            masked = self._placeholder(len(self.ids)) + masked
        return masked

    def unmask(self, text: str) -> str:
        """Return rendered text as a person would see it."""
        return self._placeholders.sub(lambda match: self._names[int(match[1])], text) if "\ue002" in text else text

    def rewrite(self, rendered: str) -> tuple[str, list[int]]:
        """Return rendered text for the renamed tokenizer, and the ids of the control tokens it holds."""
        found: list[int] = []

        def rename(match: re.Match[str]) -> str:
            found.append(self.ids[match[0]])
            return self.secret(match[0])

        return self.unmask(self.pattern.sub(rename, rendered)), found

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.ids, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @cached_property
    def _names(self) -> list[str]:
        """Text of each placeholder; the last one is empty and only separates neighbours."""
        return [*self.ids, ""]

    @cached_property
    def _order(self) -> dict[str, int]:
        return {text: position for position, text in enumerate(self.ids)}

    def _placeholder(self, position: int) -> str:
        return f"\ue002{self.nonce}{position:06d}\ue003"

    @cached_property
    def _placeholders(self) -> re.Pattern[str]:
        return re.compile(f"\ue002{self.nonce}(\\d{{6}})\ue003")

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.ids))

    @cached_property
    def _heads(self) -> frozenset[str]:
        return frozenset(text[:end] for text in self.ids for end in range(1, len(text)))

    @cached_property
    def _tails(self) -> frozenset[str]:
        return frozenset(text[start:] for text in self.ids for start in range(1, len(text)))


def rename_control_tokens(tokenizer: dict[str, Any], control: ControlTokens) -> None:
    """Give the control tokens of a parsed `tokenizer.json` their secret names, in place; ids stay."""
    secret = {text: control.secret(text) for text in control.ids}
    added = tokenizer.setdefault("added_tokens", [])
    known = {token["content"] for token in added}
    for token in added:
        token["content"] = secret.get(token["content"], token["content"])
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added += [{"id": control.ids[text], "content": secret[text]} | plain for text in secret if text not in known]
    added.sort(key=lambda token: token["id"])
    model = tokenizer["model"]
    if isinstance(model["vocab"], dict):
        for text in secret.keys() & model["vocab"].keys():
            model["vocab"][secret[text]] = model["vocab"].pop(text)
    else:
        model["vocab"] = [[secret.get(piece, piece), *rest] for piece, *rest in model["vocab"]]
    if model.get("unk_token") in secret:
        model["unk_token"] = secret[model["unk_token"]]


def _vocabulary(tokenizer: Mapping[str, Any]) -> Mapping[str, int]:
    vocab = tokenizer["model"]["vocab"]
    return vocab if isinstance(vocab, dict) else {piece[0]: position for position, piece in enumerate(vocab)}
