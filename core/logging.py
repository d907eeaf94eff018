"""Logs: structlog for our own lines and those of libraries alike, to standard error, with secrets taken out."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

from core.settings import Settings

_SECRET_KEYS = re.compile(r"authorization|api_?key|secret|password|cookie", re.IGNORECASE)
_SECRET_TEXTS = (
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]+"), r"\1***"),
    (re.compile(r"\bpt_[\w-]+"), "pt_***"),
    (re.compile(r"(?i)(x-amz-(?:signature|credential|security-token)=)[^&\s]+"), r"\1***"),
    (re.compile(r"(\b[a-z][a-z0-9+]*://[^\s:/@]*:)[^\s@/]+@"), r"\1***@"),
)
_MAX_DEPTH = 4


def configure_logging(settings: Settings) -> None:
    """Call once, when a process starts."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
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


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Secrets by the name of their key or by their look; keys, signatures and passwords in URLs."""
    for key in list(event):
        if not key.startswith("_"):
            event[key] = "***" if _SECRET_KEYS.search(key) else _clean(event[key], 0)
    return event


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        for pattern, replacement in _SECRET_TEXTS:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        return {
            key: "***" if _SECRET_KEYS.search(str(key)) else _clean(inner, depth + 1) for key, inner in value.items()
        }
    if isinstance(value, list | tuple) and depth < _MAX_DEPTH:
        return [_clean(inner, depth + 1) for inner in value]
    return value
