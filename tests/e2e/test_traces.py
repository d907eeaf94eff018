"""OpenTelemetry traces: requests and attempts, where they are wanted; nothing where they are not."""

import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from api_server import serve
from backends import make_backend
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from toy_jobs import InProcessWorker, submit_toy, wait_for, wait_for_status
from toy_trainer import Script

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.session import Database
from core.settings import Settings, SettingsError
from core.telemetry import tracing
from core.telemetry.tracing_export import WithoutQuery, open_provider

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(WithoutQuery())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.install(provider)
    yield exporter
    tracing.install(None)


def test_a_request_is_a_span_of_the_callers_trace(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        headers = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01", "X-Request-ID": "mine-1"}
        assert api.http.get("/jobs/job_1", params={"x": "typed by a user"}, headers=headers).status_code == 422
    (span,) = spans.get_finished_spans()
    assert span.name == "GET /jobs/{job_id}"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE_ID
    found = dict(span.attributes or {})
    assert (found["http.response.status_code"], found["preftune.request_id"]) == (422, "mine-1")
    assert "typed" not in str(found)


def test_an_attempt_is_a_span_of_its_parts(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/preftune.db"
    upgrade(url)
    with closing(Database(open_engine(url))) as database:
        backend = make_backend(tmp_path, database, poll_seconds=0.05, stop_grace_seconds=5)
        job_id = submit_toy(backend, Script(steps=2))
        with InProcessWorker(backend):
            wait_for_status(backend, job_id, "succeeded")
            wait_for(lambda: "attempt" in by_name(spans), "the end of the attempt")
    found = by_name(spans)
    assert set(found) == {"attempt", "staging", "training", "publishing"}
    assert found["attempt"].attributes == {
        "preftune.job_id": job_id,
        "preftune.project_id": "default",
        "preftune.attempt": 1,
        "preftune.worker": backend.settings.effective_worker_name,
    }
    for name in ("staging", "training", "publishing"):
        assert found[name].parent == found["attempt"].context


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


def test_traces_are_off_unless_they_are_set_to_go_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    tracing.start(Settings(), "preftune-api")
    assert tracing.installed() is None
    with tracing.span("nowhere") as span:
        assert not span.is_recording()


def test_without_the_extra_the_start_stops_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("core.telemetry.tracing.importlib.import_module", missing)
    with pytest.raises(SettingsError, match=r"preftune-service\[otel\]"):
        tracing.start(Settings(otlp_endpoint="http://127.0.0.1:9"), "preftune-api")


def test_spans_arrive_at_a_collector() -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        provider = open_provider(f"http://127.0.0.1:{server.server_address[1]}/", "preftune-worker")
        tracing.install(provider)
        with tracing.span("attempt", job_id="job_1"):
            pass
        tracing.install(None)
        provider.shutdown()
        server.shutdown()
    ((path, body),) = received
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    names = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert names["service.name"] == "preftune-worker"
    assert [span.name for span in resource.scope_spans[0].spans] == ["attempt"]
