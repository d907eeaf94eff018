"""Prometheus metrics: requests as counted by this process, jobs as counted in the database."""

from collections import Counter as Counts
from collections.abc import Iterable, Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from core.domain.errors import Unavailable
from core.domain.jobs.job_state import AttemptOutcome, JobStatus
from core.services.backend import Backend
from core.services.operations.roster import ProcessView
from core.services.operations.statistics import WAIT_BOUNDS_SECONDS, RunningJob, ServiceStatistics, read_statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Clients can make up others, and each would be a new series."""
AUTH_FAILURES = ("key", "key_throttled", "sign_in", "sign_in_throttled", "identity")
WORKER_STATES = ("working", "idle", "silent")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)

log = structlog.get_logger("api")


class AuthFailures:
    """Counter of what was not let in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counter = Counter(
            "preftune_auth_failures",
            "Requests that were not let in: by a wrong key, at the sign-in, throttled, or by an identity header.",
            ["kind"],
            registry=registry,
        )
        for kind in AUTH_FAILURES:
            self._counter.labels(kind)

    def note(self, kind: str) -> None:
        """Count one; `kind` is one of AUTH_FAILURES."""
        self._counter.labels(kind).inc()


class HttpTelemetry:
    """Counts of requests by method, route and status; ids make no new series."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.auth_failures = AuthFailures(self.registry)
        labels = ("method", "route")
        self._requests = Counter(
            "preftune_http_requests", "HTTP requests answered.", (*labels, "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "preftune_http_request_seconds",
            "Seconds from the request to the end of its answer; streams are left out.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        if not route.endswith("/stream"):
            self._seconds.labels(method, route).observe(seconds)

    def exposition(self, backend: Backend, num_streams: int) -> bytes:
        """Return all metrics in Prometheus' text format."""
        service = CollectorRegistry()
        service.register(_Service(backend, num_streams))
        return generate_latest(self.registry) + generate_latest(service)


class _Service(Collector):
    def __init__(self, backend: Backend, num_streams: int) -> None:
        self._backend = backend
        self._num_streams = num_streams

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("preftune_streams", "Event streams open.", value=self._num_streams)
        try:
            statistics = read_statistics(self._backend)
        except Unavailable as error:
            log.warning("statistics_unavailable", reason=error.detail)
            yield GaugeMetricFamily("preftune_database_up", "Does the database answer?", value=0)
            return
        yield GaugeMetricFamily("preftune_database_up", "Does the database answer?", value=1)
        yield from _jobs(statistics)
        yield from _running(statistics.running)
        yield from _processes(statistics.processes)


def _jobs(found: ServiceStatistics) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("preftune_jobs", "Jobs by status.", labels=["status"])
    for status in JobStatus:
        jobs.add_metric([status.value], found.jobs_by_status.get(status.value, 0))
    yield jobs
    attempts = CounterMetricFamily("preftune_attempts", "Ended attempts by outcome.", labels=["outcome"])
    for outcome in AttemptOutcome:
        attempts.add_metric([outcome.value], found.attempts_by_outcome.get(outcome.value, 0))
    yield attempts
    lost = found.attempts_by_outcome.get(AttemptOutcome.LOST.value, 0)
    yield CounterMetricFamily("preftune_lease_losses", "Attempts whose worker was lost.", value=lost)
    bounds = [*(str(bound) for bound in WAIT_BOUNDS_SECONDS), "+Inf"]
    yield HistogramMetricFamily(
        "preftune_queue_wait_seconds",
        "Seconds from submission to the first start of a job.",
        buckets=list(zip(bounds, map(float, found.waits), strict=True)),
        sum_value=found.sum_of_waits_seconds,
    )
    yield GaugeMetricFamily(
        "preftune_objects_missing",
        "Stored objects found missing or damaged.",
        value=found.num_lost_objects,
    )
    yield GaugeMetricFamily(
        "preftune_oldest_queued_seconds", "Age of the oldest queued job.", value=found.oldest_queued_seconds
    )


def _running(jobs: list[RunningJob]) -> Iterator[Metric]:
    labels = ["job_id", "stage"]
    seconds = GaugeMetricFamily("preftune_step_seconds", "Seconds of the newest step of a running job.", labels=labels)
    speed = GaugeMetricFamily("preftune_tokens_per_second", "Tokens a second of a running job.", labels=labels)
    for job in jobs:
        if job.step_seconds is not None:
            seconds.add_metric([job.job_id, job.stage], job.step_seconds)
        if job.tokens_per_second is not None:
            speed.add_metric([job.job_id, job.stage], job.tokens_per_second)
    yield seconds
    yield speed


def _processes(found: list[ProcessView]) -> Iterator[Metric]:
    workers = GaugeMetricFamily("preftune_workers", "Workers of the last day, by state.", labels=["state"])
    states = Counts[str](process.state for process in found if process.kind == "worker")
    for state in WORKER_STATES:
        workers.add_metric([state], states[state])
    yield workers
    offset = GaugeMetricFamily(
        "preftune_clock_offset_seconds", "Clock of a process minus the database's.", labels=["process"]
    )
    labels = ["process", "disk"]
    free = GaugeMetricFamily("preftune_disk_free_bytes", "Free bytes of a process's disk.", labels=labels)
    reserve = GaugeMetricFamily(
        "preftune_disk_reserve_bytes", "Free bytes below which nothing new is taken in.", labels=labels
    )
    for process in found:
        if process.state == "silent":
            continue
        if process.clock_offset_seconds is not None:
            offset.add_metric([process.id], process.clock_offset_seconds)
        for room in process.disks:
            free.add_metric([process.id, room.what], room.free_bytes)
            reserve.add_metric([process.id, room.what], room.reserve_bytes)
    yield offset
    yield free
    yield reserve
