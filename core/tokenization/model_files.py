"""Tokenizer files of a base model's folder, read as transformers reads them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.tokenization.errors import UnusableTokenizer

_MAX_JSON_BYTES = 256 * 1024**2


@dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    tokenizer: dict[str, Any]
    """`tokenizer.json`"""
    named_tokens: dict[str, str]
    """`bos_token`, `eos_token` and the like, as chat templates may use them."""
    adds_bos: bool
    """Whether the configuration asks for a start token before plain text."""
    chat_template: str | None
    end_ids: tuple[int, ...]
    """Token ids at which the model's own configuration stops generating."""
    digest: str
    """Digest of all that determines how text becomes token ids."""


def read_tokenizer_files(model_dir: Path) -> TokenizerFiles:
    """Read the files; raises UnusableTokenizer when one is missing or not what it should be."""
    raw = _read(model_dir / "tokenizer.json")
    if raw is None:
        raise UnusableTokenizer("The base model has no tokenizer.json.")
    config = _object(_read(model_dir / "tokenizer_config.json"), "tokenizer_config.json")
    named = _object(_read(model_dir / "special_tokens_map.json"), "special_tokens_map.json") | config
    named_tokens = {key: text for key, value in named.items() if key.endswith("_token") and (text := _content(value))}
    template = _chat_template(model_dir, config)
    determining = [hashlib.sha256(raw).hexdigest(), named_tokens, bool(config.get("add_bos_token")), template]
    return TokenizerFiles(
        tokenizer=_object(raw, "tokenizer.json"),
        named_tokens=named_tokens,
        adds_bos=bool(config.get("add_bos_token")),
        chat_template=template,
        end_ids=_end_ids(model_dir),
        digest=hashlib.sha256(json.dumps(determining, sort_keys=True).encode()).hexdigest(),
    )


def _read(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise UnusableTokenizer(f"{path.name} is too large.")
    return path.read_bytes()


def _object(raw: bytes | None, name: str) -> dict[str, Any]:
    try:
        value = {} if raw is None else json.loads(raw)
    except (ValueError, RecursionError):
        raise UnusableTokenizer(f"{name} of the base model is not JSON.") from None
    if not isinstance(value, dict):
        raise UnusableTokenizer(f"{name} of the base model is not a JSON object.")
    return value


def _content(value: object) -> str | None:
    """Return a named token's text, which may be in an object's `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _chat_template(model_dir: Path, config: dict[str, Any]) -> str | None:
    """Return the template: a file of its own has precedence; of several named ones `default` is used."""
    if (raw := _read(model_dir / "chat_template.jinja")) is not None:
        return raw.decode("utf-8", errors="replace")
    side = _object(_read(model_dir / "chat_template.json"), "chat_template.json")
    template = side.get("chat_template", config.get("chat_template"))
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template if isinstance(template, str) and template else None


def _end_ids(model_dir: Path) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        ids = _object(_read(model_dir / name), name).get("eos_token_id")
        ids = [ids] if isinstance(ids, int) else ids
        if isinstance(ids, list) and ids and all(isinstance(token, int) for token in ids):
            return tuple(ids)
    return ()
