"""Logs of our own code and of libraries by structlog, to standard error, without secrets."""

import logging
import re
import sys
from collections import OrderedDict
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

from core.settings import Settings

_SECRET_KEYS = re.compile(r"authorization|api_?key|secret|password|cookie", re.IGNORECASE)
Texts = tuple[tuple[re.Pattern[str], str], ...]
_SECRET_TEXTS: Texts = (
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]+"), r"\1***"),
    (re.compile(r"\bpt_[\w-]+"), "pt_***"),
    (re.compile(r"(?i)(x-amz-(?:signature|credential|security-token)=)[^&\s]+"), r"\1***"),
    (re.compile(r"(://[^\s:/@]*:)[^\s@/]+@"), r"\1***@"),
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""What a terminal obeys or hides, line feeds and tabs of tracebacks apart."""
_MAX_DEPTH = 4
_MAX_SECRETS = 100
MIN_SECRET_CHARS = 8
"""What is shorter is part of ordinary words too."""


def configure_logging(settings: Settings) -> None:
    """Configure logging, once when a process starts."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redactor_of(settings),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)  # `core.database.migrate` says it in one line


def clean_text(text: str) -> str:
    """Return the text without recognisable secrets and without terminal control characters."""
    for pattern, replacement in _SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return _CONTROLS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Remove secrets, recognised by key name or form; also keys, signatures and passwords in URLs."""
    return _redact(event, _SECRET_TEXTS)


def redactor_of(settings: Settings) -> Processor:
    """Return a processor that does `redact` and removes the secrets that this process itself holds."""
    seen: OrderedDict[str, None] = OrderedDict()
    texts: Texts = _SECRET_TEXTS

    def process(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        nonlocal texts
        fresh = [text for text in settings.current_secrets() if len(text) >= MIN_SECRET_CHARS and text not in seen]
        if fresh:  # those that were replaced are left out as well: they may work for a while
            seen.update(dict.fromkeys(fresh))
            while len(seen) > _MAX_SECRETS:
                seen.popitem(last=False)
            texts = (*_SECRET_TEXTS, (re.compile("|".join(map(re.escape, seen))), "***"))
        return _redact(event, texts)

    return process


def _redact(event: MutableMapping[str, Any], texts: Texts) -> MutableMapping[str, Any]:
    for key in list(event):
        if not key.startswith("_"):
            event[key] = "***" if _SECRET_KEYS.search(key) else _clean(event[key], texts, 0)
    return event


def _clean(value: Any, texts: Texts, depth: int) -> Any:
    if isinstance(value, str):
        for pattern, replacement in texts:
            value = pattern.sub(replacement, value)
        return _CONTROLS.sub(_escape, value)
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        return {
            key: "***" if _SECRET_KEYS.search(str(key)) else _clean(inner, texts, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple) and depth < _MAX_DEPTH:
        return [_clean(inner, texts, depth + 1) for inner in value]
    return value
