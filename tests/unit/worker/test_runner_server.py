"""The runner's HTTP side: who may ask."""

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from worker.runner.server import RunnerServer


def ask(secret: str | None, host: str = "127.0.0.1:8001", **headers: str) -> int:
    pool: Any = SimpleNamespace(loaded=[])

    async def get() -> int:
        transport = httpx.ASGITransport(RunnerServer(pool, secret).app())
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return (await client.get("/state", headers=headers)).status_code

    return asyncio.run(get())


def test_with_a_secret_only_who_knows_it_is_answered() -> None:
    assert ask("right", Authorization="Bearer right") == 200
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}):
        assert ask("right", **given) == 401


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("127.0.0.1:8001", {}, 200),
        ("localhost:8001", {}, 200),
        ("[::1]:8001", {}, 200),
        ("127.0.0.1:8001", {"Origin": "https://elsewhere.example"}, 401),
        ("rebound.example:8001", {}, 401),
    ],
)
def test_without_a_secret_pages_in_a_browser_are_not_answered(host: str, headers: dict[str, str], status: int) -> None:
    assert ask(None, host, **headers) == status
