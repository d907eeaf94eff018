"""Buffering and sending of spans: loaded only where traces are on, since it needs the extra `otel`."""

from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

_TRACES_PATH = "/v1/traces"
_QUERY = "url.query"


class WithoutQuery(SpanProcessor):
    """Removes the query of URLs, which may hold user input; the log has none either."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if span.attributes and _QUERY in span.attributes:
            span.set_attribute(_QUERY, "")


def open_provider(endpoint: str, service: str) -> TracerProvider:
    """Open a provider that sends batches from its own thread; spans over its queue's size are dropped."""
    resource = Resource.create({"service.name": service, "service.version": version("preftune")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(WithoutQuery())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + _TRACES_PATH)))
    return provider
