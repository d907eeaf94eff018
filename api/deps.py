"""Dependencies of endpoints, all asynchronous: a plain function would cost a hop to another thread."""

from typing import Annotated

from fastapi import Depends, Header, Query, Request, Security
from fastapi.security import HTTPBearer

from api.access.callers import Caller
from api.access.shares import holder_of
from api.live.feeds import Feeds
from api.live.polls import Polls
from api.live.waiting import HeldWaiters, Waiters
from api.readiness import ReadinessProbe
from api.uploads.receive import UploadDesk
from core.domain.json_numbers import MAX_WHOLE
from core.services.backend import Backend
from core.services.chat.runner import Runner
from core.services.datasets.processing import DatasetProcessor

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
MAX_CURSOR_CHARS = 512
MAX_SEQ = MAX_WHOLE
MAX_WAIT_SECONDS = 60

bearer = HTTPBearer(
    auto_error=False,
    description="A key of the service. Each operation names the scope that it needs: `use`, `read`, `write`, `admin` "
    "or `operator`; from `write` on each of them includes all before it.",
)
"""For the description of the API only: `api.access.middleware` has checked the key before any endpoint runs."""


async def get_backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


async def get_caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def get_runner(request: Request) -> Runner:
    runner: Runner = request.app.state.runner
    return runner


async def get_upload_desk(request: Request) -> UploadDesk:
    desk: UploadDesk = request.app.state.upload_desk
    return desk


async def get_readiness(request: Request) -> ReadinessProbe:
    probe: ReadinessProbe = request.app.state.readiness
    return probe


async def get_polls(request: Request) -> Polls:
    polls: Polls = request.app.state.polls
    return polls


async def get_feeds(request: Request) -> Feeds:
    feeds: Feeds = request.app.state.feeds
    return feeds


async def get_processor(request: Request) -> DatasetProcessor:
    processor: DatasetProcessor = request.app.state.dataset_processor
    return processor


async def get_waiters(request: Request) -> HeldWaiters:
    waiters: Waiters = request.app.state.waiters
    return waiters.of(holder_of(request.scope))


BackendDep = Annotated[Backend, Depends(get_backend)]
CallerDep = Annotated[Caller, Depends(get_caller)]
RunnerDep = Annotated[Runner, Depends(get_runner)]
UploadDeskDep = Annotated[UploadDesk, Depends(get_upload_desk)]
ReadinessDep = Annotated[ReadinessProbe, Depends(get_readiness)]
ProcessorDep = Annotated[DatasetProcessor, Depends(get_processor)]
PollsDep = Annotated[Polls, Depends(get_polls)]
WaitersDep = Annotated[HeldWaiters, Depends(get_waiters)]
FeedsDep = Annotated[Feeds, Depends(get_feeds)]
NEEDS_KEY = [Security(bearer)]

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items of a page.")]
Cursor = Annotated[
    str | None,
    Query(max_length=MAX_CURSOR_CHARS, description="`next_cursor` of the previous page; without it, the first page."),
]
After = Annotated[int, Query(ge=0, le=MAX_SEQ, description="`last_seq` of the previous page: only newer items.")]
Wait = Annotated[
    float,
    Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to hold the answer, unless what was asked for is done."),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text that is new for each thing to create. The same key and request within 24 hours gets the "
        "first answer again and creates nothing.",
    ),
]
