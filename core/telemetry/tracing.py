"""OpenTelemetry traces of requests and attempts; off unless PREFTUNE_OTLP_ENDPOINT is set.

Its SDK comes with the extra `otel`; without it, or without the setting, spans cost next to nothing and go nowhere.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.trace import NoOpTracerProvider, Span, TracerProvider

from core.settings import Settings, SettingsError

PREFIX = "preftune."
"""Prefix of our own attributes, which are ids and words, never what users wrote."""


@dataclass
class _Installed:
    provider: TracerProvider | None = None


_installed = _Installed()
_NOWHERE = NoOpTracerProvider()


def start(settings: Settings, service: str) -> None:
    """Start tracing, once when a process starts; open spans are sent at its end. Raises SettingsError."""
    if settings.otlp_endpoint is None:
        return
    try:
        export = importlib.import_module("core.telemetry.tracing_export")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"PREFTUNE_OTLP_ENDPOINT needs {error.name}, which is not installed: pip install 'preftune-service[otel]'"
        ) from None
    install(export.open_provider(settings.otlp_endpoint, service))


def install(provider: TracerProvider | None) -> None:
    """Send spans to this provider; None disables tracing."""
    _installed.provider = provider


def installed() -> TracerProvider | None:
    return _installed.provider


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[Span]:
    """Record the block as one span; an exception that leaves it marks it as failed."""
    tracer = (_installed.provider or _NOWHERE).get_tracer("preftune")
    named = {PREFIX + key: value for key, value in attributes.items()}
    with tracer.start_as_current_span(name, attributes=named) as current:
        yield current
