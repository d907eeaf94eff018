"""Encoding of rendered text to token ids, with the `tokenizers` library alone."""

import itertools
import json
import re
from copy import deepcopy
from typing import Any

from tokenizers import Tokenizer

from core.tokenization.control_tokens import ControlTokens, rename_control_tokens
from core.tokenization.errors import ControlTokenInText, UnusableTokenizer

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
"""A byte that has no other token, as SentencePiece writes it."""


def _byte_alphabet() -> dict[str, int]:
    """Return the characters by which byte-level tokenizers write bytes: printable ones stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()


class TextEncoder:
    """Encodes text that starts a sequence, and text that continues one.

    The difference matters to SentencePiece-style tokenizers, which put a space before the first word: a response
    follows its prompt, so none is put before it.

    Raises:
        UnusableTokenizer: `tokenizer.json` does not describe a tokenizer, or its control tokens cannot be kept apart.
    """

    def __init__(self, tokenizer: dict[str, Any], control: ControlTokens) -> None:
        self._control = control
        self._start_tokens = _start_tokens(tokenizer.get("post_processor"))
        tokenizer = tokenizer | {"truncation": None, "padding": None, "post_processor": None}
        rename_control_tokens(tokenizer, control)
        self._fresh = _load(tokenizer)
        continued = _without_prefix(tokenizer)
        self._continued = self._fresh if continued == tokenizer else _load(continued)
        for text, token_id in control.ids.items():
            if self._fresh.token_to_id(control.secret(text)) != token_id:
                raise UnusableTokenizer(f"The tokenizer's control token {text} cannot be kept apart from text.")
        self._guarded_ids = frozenset(control.ids.values()) - _unknown_ids(self._fresh, tokenizer)
        self._names = {token_id: text for text, token_id in control.ids.items()}
        self._is_byte_level = "ByteLevel" in json.dumps(tokenizer.get("decoder"))

    @property
    def vocab_size(self) -> int:
        return self._fresh.get_vocab_size()

    @property
    def start_ids(self) -> list[int]:
        """Ids of control tokens that the tokenizer puts before plain text, such as a start of text."""
        return [self._control.ids[text] for text in self._start_tokens if text in self._control.ids]

    def encode(self, rendered: str) -> list[int]:
        """Return ids of rendered text that starts a sequence. Raises ControlTokenInText."""
        return self._encode(self._fresh, *self._control.rewrite(rendered))

    def encode_after(self, previous_id: int, rendered: str) -> list[int]:
        """Return ids of rendered text that follows another token. Raises ControlTokenInText."""
        text, control_ids = self._control.rewrite(rendered)
        if previous_id in self._names:  # encoded together with it: such a token may take the space that follows it
            secret = self._control.secret(self._names[previous_id])
            return self._encode(self._fresh, secret + text, [previous_id, *control_ids])[1:]
        return self._encode(self._continued, text, control_ids)

    def decode(self, ids: list[int]) -> str:
        """Return text without control tokens."""
        return self._fresh.decode([token for token in ids if token not in self._names], skip_special_tokens=False)

    def show_token(self, token_id: int) -> str:
        """Return one token as a person reads it; a part of a character shows as `�`."""
        if token_id in self._names:
            return self._names[token_id]
        if self._is_byte_level:
            return self._fresh.decode([token_id], skip_special_tokens=False)
        return (self._fresh.id_to_token(token_id) or "").replace("▁", " ")

    def token_bytes(self, token_id: int) -> bytes | None:
        """Return the bytes of one token, also where they are a part of a character; None for a control token."""
        piece = self._fresh.id_to_token(token_id)
        if token_id in self._names or piece is None:
            return None
        if self._is_byte_level and all(char in _BYTES for char in piece):
            return bytes(_BYTES[char] for char in piece)
        if found := _BYTE_PIECE.fullmatch(piece):
            return bytes([int(found[1], 16)])
        return self.show_token(token_id).encode()

    def _encode(self, tokenizer: Tokenizer, text: str, control_ids: list[int]) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        guarded = self._guarded_ids
        if [token for token in ids if token in guarded] != [token for token in control_ids if token in guarded]:
            raise ControlTokenInText(
                "The tokenizer of this base model does not keep its control tokens apart from the text of this row."
            )
        return ids


def _load(tokenizer: dict[str, Any]) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(tokenizer, ensure_ascii=False))
    except Exception as error:  # the library raises nothing narrower
        raise UnusableTokenizer("The base model's tokenizer.json does not describe a tokenizer.") from error


def _without_prefix(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Return the tokenizer without the prefix before the first word."""
    parts = {key: deepcopy(tokenizer.get(key)) for key in ("normalizer", "pre_tokenizer")}
    for part in parts.values():
        for step in _steps(part):
            if "prepend_scheme" in step:
                step["prepend_scheme"] = "never"
            if "add_prefix_space" in step:
                step["add_prefix_space"] = False
    normalizer = parts["normalizer"]
    if normalizer and normalizer["type"] == "Prepend":
        parts["normalizer"] = None
    elif normalizer and normalizer["type"] == "Sequence":
        normalizer["normalizers"] = [step for step in normalizer["normalizers"] if step["type"] != "Prepend"]
    return tokenizer | parts


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    if not part:
        return []
    nested = part.get("pretokenizers") or part.get("normalizers") or part.get("processors") or []
    return [part, *(inner for step in nested for inner in _steps(step))]


def _start_tokens(post_processor: dict[str, Any] | None) -> list[str]:
    for step in _steps(post_processor):
        if step["type"] == "TemplateProcessing":
            pieces = itertools.takewhile(lambda piece: "Sequence" not in piece, step["single"])
            return [piece["SpecialToken"]["id"] for piece in pieces]
        if step["type"] in ("RobertaProcessing", "BertProcessing"):
            return [step["cls"][0]]
    return []


def _unknown_ids(loaded: Tokenizer, tokenizer: dict[str, Any]) -> frozenset[int]:
    """Return the id for characters outside the vocabulary, which text may produce."""
    model = tokenizer["model"]
    token = model.get("unk_token")
    unknown = loaded.token_to_id(token) if token else model.get("unk_id")
    return frozenset() if unknown is None else frozenset({unknown})
