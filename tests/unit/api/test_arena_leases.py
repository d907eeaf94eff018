"""Pairs of an arena over HTTP: a share of the answers for each key, and an end when the client goes away."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from api.access.callers import Caller
from api.access.shares import Shares
from api.http.problems import HttpError
from api.routes.arenas import lease_pairs
from core.domain.arenas.arenas import LeaseRequest
from core.services.arenas import answers

CALLER = Caller("default", "key_1")


def test_one_key_has_a_share_and_a_client_that_goes_away_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def next_pairs(*_: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    monkeypatch.setattr(answers, "next_pairs", next_pairs)
    gone, shares = asyncio.Event(), Shares(0.25, answers_of_one=1)
    scope = {"type": "http", "app": SimpleNamespace(state=SimpleNamespace(shares=shares)), "state": {"caller": CALLER}}
    nothing: Any = None

    async def ask() -> Any:
        return await lease_pairs("arena_1", LeaseRequest(), Request(scope, receive), nothing, CALLER, nothing)

    async def run() -> None:
        first = asyncio.create_task(ask())
        await started.wait()
        with pytest.raises(HttpError) as refused:
            await ask()
        assert refused.value.fault.kind.code == "too-many-answers"
        gone.set()
        answer = await first
        assert isinstance(answer, Response)
        assert answer.status_code == 499
        assert ended.is_set()
        assert shares.answers.num_held == 0

    asyncio.run(run())
