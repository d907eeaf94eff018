"""Vocabulary of a GGUF file, from `tokenizer.json` alone.

llama.cpp's converter asks for SentencePiece's own file, which policies do not have, or knows a byte-level tokenizer by
the ids it gives to one text, which no tokenizer with a vocabulary of its own matches. What it needs is in
`tokenizer.json`: the order of merges, and the steps before them.
"""

import importlib
import json
from collections.abc import Mapping
from typing import Any

_SPACE = "▁"
_BYTE_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))


class UnknownTokenizer(Exception):
    """Raised when llama.cpp would split text differently. The text is for the user."""


def write_vocabulary(model: Any) -> None:
    """Replace the converter's `set_vocab`; `model` is one of its models. Raises UnknownTokenizer."""
    tokenizer = _read_tokenizer(model)
    if tokenizer["model"].get("type") != "BPE":
        raise UnknownTokenizer("Only byte-pair tokenizers can be exported as GGUF.")
    if tokenizer["model"].get("byte_fallback"):
        _write_sentence_pieces(model, tokenizer)
    else:
        model._set_vocab_gpt2()


def name_of_steps(model: Any, tokenizer: Any) -> str:
    """Replace the converter's `get_vocab_base_pre`: by known ids first, then by the steps themselves."""
    try:
        return str(type(model).known_vocab_base_pre(model, tokenizer))
    except NotImplementedError:
        return _known_steps(_read_tokenizer(model))


def _read_tokenizer(model: Any) -> dict[str, Any]:
    """Read the tokenizer as training does; transformers replaces some steps by the architecture's usual ones."""
    values: dict[str, Any] = json.loads((model.dir_model / "tokenizer.json").read_text(encoding="utf-8"))
    return values


def _known_steps(tokenizer: Mapping[str, Any]) -> str:
    before = tokenizer.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    *first, last = [(step.get("type"), step.get("individual_digits")) for step in steps]
    is_plain = last[0] == "ByteLevel" and not steps[-1]["add_prefix_space"] and steps[-1].get("use_regex", True)
    if is_plain and tokenizer.get("normalizer") is None:
        if not first:
            return "gpt-2"
        if first == [("Digits", True)]:
            return "smollm"
    raise UnknownTokenizer("llama.cpp does not know how this tokenizer splits text before it merges.")


def _write_sentence_pieces(model: Any, tokenizer: Mapping[str, Any]) -> None:
    """Write pieces with the order of merges as SentencePiece's scores."""
    gguf = importlib.import_module("gguf")
    scores = {"".join(_parts(merge)): -float(rank) for rank, merge in enumerate(tokenizer["model"]["merges"])}
    texts = {index: text for text, index in tokenizer["model"]["vocab"].items()}
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    num_tokens = max(int(model.hparams["vocab_size"]), 1 + max({*texts, *added}))
    unknown = tokenizer["model"].get("unk_token")
    tokens, kinds = [], []
    for index in range(num_tokens):
        text = added[index]["content"] if index in added else texts.get(index, f"[PAD{index}]")
        tokens.append(text.encode())
        kinds.append(_kind(gguf.TokenType, text, added.get(index), is_known=index in texts, unknown=unknown))
    model.gguf_writer.add_tokenizer_model("llama")
    model.gguf_writer.add_tokenizer_pre("default")
    model.gguf_writer.add_token_list(tokens)
    model.gguf_writer.add_token_scores([scores.get(texts.get(index, ""), 0.0) for index in range(num_tokens)])
    model.gguf_writer.add_token_types(kinds)
    model.gguf_writer.add_add_space_prefix(_adds_space(tokenizer))
    gguf.SpecialVocab(model.dir_model, n_vocab=num_tokens).add_to_gguf(model.gguf_writer)


def _parts(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _kind(kinds: Any, text: str, added: Mapping[str, Any] | None, *, is_known: bool, unknown: str | None) -> Any:
    if text == unknown:
        return kinds.UNKNOWN
    if added is not None:
        return kinds.CONTROL if added["special"] else kinds.USER_DEFINED
    if text in _BYTE_TOKENS:
        return kinds.BYTE
    return kinds.NORMAL if is_known else kinds.UNUSED


def _adds_space(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a space is added before the first word, by a normaliser or by the Metaspace step."""
    normalizer = tokenizer.get("normalizer") or {}
    prepends = [step.get("prepend") for step in normalizer.get("normalizers", [normalizer])]
    before = tokenizer.get("pre_tokenizer") or {}
    schemes = [step.get("prepend_scheme", "never") for step in before.get("pretokenizers", [before])]
    return _SPACE in prepends or any(scheme in ("first", "always") for scheme in schemes)
