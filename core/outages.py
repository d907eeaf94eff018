"""Reason of an outage for operators: what the database, the broker or the store answered, in one line."""

import threading
import time

import structlog

from core.telemetry.logging import clean_text

MAX_CHARS = 300
_LOGGED_SECONDS = 60.0
"""The same reason is not logged again before."""

_log = structlog.get_logger(__name__)
_lock = threading.Lock()
_logged: dict[tuple[str, str], float] = {}
_MAX_LOGGED = 64


def reason_of(error: BaseException) -> str:
    """Return class, code and text of the innermost error without secrets; never for clients."""
    innermost = _innermost(error)
    text = " ".join(clean_text(_text(innermost)).split())
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def note(part: str, error: BaseException) -> None:
    """Log each reason once; again when it lasts longer than a minute."""
    key = (part, reason_of(error))
    now = time.monotonic()
    with _lock:
        if now - _logged.get(key, -_LOGGED_SECONDS) < _LOGGED_SECONDS:
            return
        if len(_logged) >= _MAX_LOGGED:
            _logged.clear()
        _logged[key] = now
    _log.warning("outage", part=part, reason=key[1])


def _innermost(error: BaseException) -> BaseException:
    """Follow the causes; of SQLAlchemy's errors to the driver's, of a store's refusal to the refusal.

    Not down `__context__`: that is whatever happened to be handled, such as an empty pool of connections.
    """
    seen = {id(error)}
    while not _answer(error):
        cause = getattr(error, "orig", None) or error.__cause__
        if not isinstance(cause, BaseException) or id(cause) in seen:
            return error
        seen.add(id(cause))
        error = cause
    return error


def _answer(error: BaseException) -> dict[str, object]:
    """Return the `Error` part of a store's answer, in the form of botocore."""
    response = getattr(error, "response", None)
    found = response.get("Error") if isinstance(response, dict) else None
    return found if isinstance(found, dict) else {}


def _text(error: BaseException) -> str:
    answer = _answer(error)
    if answer:
        status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", "")
        return f"{answer.get('Code', '')}: {answer.get('Message', '')} (HTTP {status})"
    code = getattr(error, "sqlstate", None)
    return f"{type(error).__name__}{f' {code}' if code else ''}: {error}".rstrip(": ")
