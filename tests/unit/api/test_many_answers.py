"""Requests for more answers than a runner ever takes."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from api.access.callers import Caller
from api.openai.chat_requests import CompletionRequest
from api.openai.routes.chat import create_completion
from core.domain.errors import InvalidRequest


def test_a_request_that_no_runner_could_take_is_refused_by_name() -> None:
    body = CompletionRequest(model="tiny", prompt=["a"] * 10, n=8)
    backend: Any = SimpleNamespace(settings=SimpleNamespace(effective_chat_max_per_key=72))
    nothing: Any = None
    with pytest.raises(InvalidRequest, match=r"80 answers .* may have 72") as refused:
        asyncio.run(create_completion(body, nothing, backend, Caller("default"), nothing))
    assert [error.pointer for error in refused.value.errors] == ["/n"]
