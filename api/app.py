"""The application: its middleware, and what is opened at start and closed at the end."""

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import version

import structlog
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import Scope

from api.access.authentication import Authenticator
from api.access.failures import SIGN_IN_OF_ADDRESS, SIGN_IN_OF_ALL, FailureThrottle
from api.access.identity import identity_headers
from api.access.key_ring import KeyRing
from api.access.middleware import Access
from api.access.proxies import TrustedProxies, parse_networks
from api.access.shares import Shares
from api.dashboard_files import dashboard_files
from api.docs.openapi import operation_id
from api.http import handlers
from api.http.body_limits import MAX_JSON_BYTES, BodyLimits, BodyPolicy
from api.http.head import Head
from api.http.root_path import RootPath, check_root_path
from api.live.feeds import Feeds
from api.live.polls import Polls
from api.live.waiting import Waiters
from api.middleware import RequestContext
from api.openai.routes import document as openai
from api.openai.routes import uploads as openai_uploads
from api.presence import presence_of
from api.readiness import ReadinessProbe
from api.routes import (
    arenas,
    artifacts,
    audit,
    catalogue,
    checkpoints,
    comparisons,
    dashboard,
    dataset_versions,
    datasets,
    exports,
    feedback,
    generations,
    health,
    job_records,
    jobs,
    judgements,
    keys,
    operations,
    pages,
    pairs,
    republications,
    rounds,
    scores,
    sweeps,
    uploads,
    usage,
    webhooks,
)
from api.telemetry import HttpTelemetry
from api.uploads.arrival import DiskBudget
from api.uploads.form import MAX_OVERHEAD_BYTES
from api.uploads.receive import UploadDesk
from api.uploads.spool import SpoolArea
from core.domain.errors import Unavailable
from core.services.access import api_keys, secret_files
from core.services.backend import Backend, open_backend
from core.services.base_models.sharing import ModelSharer, is_sharing
from core.services.chat.open_runner import check_runner, open_runner
from core.services.datasets.parts import MAX_PART_BYTES
from core.services.datasets.processing import DatasetProcessor
from core.services.operations import schema
from core.services.operations.presence import Presence
from core.services.operations.sweep import Sweeper
from core.services.webhooks.delivery import WebhookDeliverer
from core.settings import Settings, SettingsError, load_settings
from core.telemetry import tracing

TITLE = "Preftune"
DESCRIPTION = (
    "Preference tuning as a service: upload pairs, post a job (SFT, then DPO or another preference loss), watch the "
    "curves, download the tuned policy. Every error is a problem document (RFC 9457)."
)
TAGS = [
    {"name": "datasets", "description": "Files of preference pairs, checked and normalised."},
    {"name": "arenas", "description": "Blind pairs, votes, and the dataset that they become."},
    {"name": "generations", "description": "What models answer to prompts, as datasets of responses."},
    {
        "name": "judgements",
        "description": "Which of two answers is better: verdicts, win rates, and the pairs they become.",
    },
    {"name": "rounds", "description": "Answer, judge, pair, train and compare, several times, as one."},
    {"name": "feedback", "description": "What people think of served answers, and the datasets that it becomes."},
    {"name": "jobs", "description": "Training jobs, their live curves and events."},
    {"name": "sweeps", "description": "Many jobs that differ in a few settings, as one."},
    {"name": "artifact", "description": "What comes out: the tuned policy."},
    {"name": "comparisons", "description": "Trained policies side by side, and which one to take."},
    {"name": "webhooks", "description": "Who is told when jobs end."},
    {"name": "catalogue", "description": "What a job can name."},
    {"name": "access", "description": "Keys, limits, and who did what."},
    {"name": "health", "description": "Is the service up?"},
]
MIN_KEY_CHARS = 32
"""A bootstrap key, unless only this machine can try it."""
MAX_WRITING_UPLOADS = 16
MAX_CHECKED_UPLOADS = max(4, 2 * (os.cpu_count() or 1))

ROUTES = (
    dataset_versions,
    datasets,
    uploads,
    arenas,
    generations,
    judgements,
    rounds,
    feedback,
    jobs,
    sweeps,
    comparisons,
    job_records,
    checkpoints,
    pairs,
    scores,
    artifacts,
    exports,
    republications,
    catalogue,
    health,
    pages,
    dashboard,
    usage,
    operations,
    audit,
    keys,
    webhooks,
)

log = structlog.get_logger("api")


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the API as an ASGI application. Raises SettingsError."""
    settings = settings or load_settings()
    app = FastAPI(
        title=TITLE,
        version=version("preftune"),
        description=DESCRIPTION,
        openapi_tags=TAGS,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        lifespan=_lifespan,
        telemetry=_telemetry(),
    )
    app.state.settings = settings
    check_runner(settings)
    app.state.shares = Shares(settings.max_share, settings.effective_chat_max_per_key)
    app.state.identities = identity_headers(settings)
    app.state.telemetry = HttpTelemetry()
    dashboard_files()  # reads them now, and not on the event loop
    handlers.register(app)
    for routes in ROUTES:
        app.include_router(routes.router)
    for router in (*openai.ROUTERS, openai.router):
        app.include_router(router, include_in_schema=False)
    _add_middleware(app, settings)
    return app


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """Wrap the routes; the last one added is the outermost. Raises SettingsError."""
    max_upload_bytes = settings.max_upload_bytes + MAX_OVERHEAD_BYTES

    def policy_of(scope: Scope) -> BodyPolicy:
        if scope["method"] == "POST" and scope["path"] in ("/datasets", "/datasets/raw", "/v1/files"):
            return BodyPolicy(max_bytes=max_upload_bytes)
        if scope["method"] == "PUT" and scope["path"].startswith(uploads.PATH):
            return BodyPolicy(max_bytes=MAX_PART_BYTES)
        if scope["path"].startswith(openai_uploads.PATH) and scope["path"].endswith("/parts"):
            return BodyPolicy(max_bytes=MAX_PART_BYTES + MAX_OVERHEAD_BYTES)
        return BodyPolicy(max_bytes=MAX_JSON_BYTES)

    app.add_middleware(Access)
    app.add_middleware(Head)
    app.add_middleware(BodyLimits, policy_of=policy_of)
    app.add_middleware(RequestContext, telemetry=app.state.telemetry)
    app.add_middleware(TrustedProxies, networks=parse_networks(settings.trusted_proxies))
    if settings.root_path:
        routers = [*(routes.router for routes in ROUTES), *openai.ROUTERS]
        check_root_path(settings.root_path, (route.path for router in routers for route in router.routes))
        app.add_middleware(RootPath, root=settings.root_path)


def _telemetry() -> TelemetryConfig:
    """Add a span for each request, where traces are on; only our own variables configure it."""
    provider = tracing.installed()
    return TelemetryConfig(
        tracing=provider is not None,
        tracer_provider=provider,
        metrics=False,
        logs=False,
        operation_spans=False,
        auto_configure=False,
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    with ExitStack() as stack:
        await to_thread.run_sync(_open, app, stack)
        app.state.runner = open_runner(app.state.backend)
        yield
        await app.state.runner.close()
        await to_thread.run_sync(stack.close)


def _open(app: FastAPI, stack: ExitStack) -> None:
    settings: Settings = app.state.settings
    secret_files.make_private(settings)
    backend = open_backend(settings)
    stack.callback(backend.close)
    _prepare_database(backend)
    area = SpoolArea.open(settings.scratch_dir)
    stack.callback(area.close)
    app.state.backend = backend
    ring = app.state.key_ring = KeyRing(backend)
    app.state.authenticator = Authenticator(ring, app.state.identities, app.state.telemetry.auth_failures)
    app.state.sign_ins = FailureThrottle(SIGN_IN_OF_ADDRESS, SIGN_IN_OF_ALL)
    app.state.feeds = Feeds(backend)
    app.state.polls = Polls(backend)
    app.state.waiters = Waiters(app.state.shares.waiting)
    app.state.readiness = ReadinessProbe(backend)
    app.state.upload_desk = UploadDesk(
        area=area,
        budget=DiskBudget(settings),
        max_bytes=settings.max_upload_bytes,
        write_limiter=CapacityLimiter(MAX_WRITING_UPLOADS),
        check_limiter=CapacityLimiter(MAX_CHECKED_UPLOADS),
    )
    processor, deliverer = DatasetProcessor(backend), WebhookDeliverer(backend)
    backgrounds: list[Sweeper | DatasetProcessor | ModelSharer | WebhookDeliverer | Presence] = [
        Sweeper(backend, makes_estimates=True),
        processor,
        deliverer,
        presence_of(backend),
    ]
    if is_sharing(settings):
        backgrounds.append(ModelSharer(backend))
    for background in backgrounds:
        background.start()
        stack.callback(background.stop)
    app.state.dataset_processor = processor
    if settings.api_key is None:
        _tell_of_keys(backend)
    elif min(map(len, settings.bootstrap_keys)) < MIN_KEY_CHARS:
        log.warning("short_api_key", meaning=f"PREFTUNE_API_KEY has fewer than {MIN_KEY_CHARS} characters")


def _tell_of_keys(backend: Backend) -> None:
    try:
        if not api_keys.has_key(backend):
            log.warning("no_api_key", meaning="only this user is served; set PREFTUNE_API_KEY to open the service")
        elif (warning := api_keys.expiry_warning(backend)) is not None:
            log.warning("keys_end", meaning=warning)
    except Unavailable as error:
        log.warning("keys_unknown", reason=error.detail)


def _prepare_database(backend: Backend) -> None:
    """Migrate SQLite; a server's schema is the operator's task, with `preftune migrate`."""
    if not backend.database.is_postgresql:
        schema.upgrade(backend.settings)
        return
    try:
        if not schema.is_usable(backend):
            raise SettingsError("The database has not this version's schema; run `preftune migrate` first.")
    except Unavailable:
        log.warning("database_unavailable", meaning="starting all the same; requests get 503 until it answers")
