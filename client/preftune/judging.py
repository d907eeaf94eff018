"""Requests below `/generations` and `/judgements`: what models answer, and which answers are better."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from preftune.transport import Transport


class Generations:
    """What models answer to prompts, as datasets of responses."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, *, models: Sequence[str], **settings: Any) -> dict[str, Any]:
        """Post a generation; `settings`: `dataset_id`, `held_out_of` or `prompts`, and any field of the API's."""
        return self._transport.post("/generations", {"models": [*models], **settings})

    def get(self, generation_id: str) -> dict[str, Any]:
        return self._transport.get(f"/generations/{generation_id}")

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        return self._transport.get("/generations", limit=limit, cursor=cursor)

    def cancel(self, generation_id: str) -> dict[str, Any]:
        """Cancel a generation; what it has answered is dropped."""
        return self._transport.post(f"/generations/{generation_id}/cancel")

    def delete(self, generation_id: str) -> None:
        """Delete the record of a generation that has ended; its dataset stays."""
        self._transport.delete(f"/generations/{generation_id}")

    def wait(
        self, generation_id: str, *, timeout_seconds: float | None = None, poll_seconds: float = 2.0
    ) -> dict[str, Any]:
        """Return the generation once it has ended. Raises TimeoutError."""
        return _wait(partial(self.get, generation_id), timeout_seconds, poll_seconds)


class Judgements:
    """Verdicts on pairs of answers, with win rates."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, *, dataset_id: str, judge: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Post a judgement; `judge`: its `kind` with the settings of that kind; `settings`: any field of the API's."""
        body = {"dataset_id": dataset_id, "judge": judge, **settings}
        return self._transport.post("/judgements", body)

    def get(self, judgement_id: str) -> dict[str, Any]:
        return self._transport.get(f"/judgements/{judgement_id}")

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        return self._transport.get("/judgements", limit=limit, cursor=cursor)

    def pairs(self, judgement_id: str, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        """Return a page of the pairs with their verdicts."""
        return self._transport.get(f"/judgements/{judgement_id}/pairs", limit=limit, cursor=cursor)

    def agreement(self, judgement_id: str, *, against: str) -> dict[str, Any]:
        """Return how often another judgement of the same pairs says the same."""
        return self._transport.get(f"/judgements/{judgement_id}/agreement", against=against)

    def cancel(self, judgement_id: str) -> dict[str, Any]:
        return self._transport.post(f"/judgements/{judgement_id}/cancel")

    def delete(self, judgement_id: str) -> None:
        """Delete a judgement that has ended, with its pairs; its dataset stays."""
        self._transport.delete(f"/judgements/{judgement_id}")

    def wait(
        self, judgement_id: str, *, timeout_seconds: float | None = None, poll_seconds: float = 2.0
    ) -> dict[str, Any]:
        """Return the judgement once it has ended. Raises TimeoutError."""
        return _wait(partial(self.get, judgement_id), timeout_seconds, poll_seconds)


def _wait(look: Callable[[], dict[str, Any]], timeout_seconds: float | None, poll_seconds: float) -> dict[str, Any]:
    """Return what `look` gives once it has ended. Raises TimeoutError."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while (found := look())["finished_at"] is None:
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"{found['id']} is still {found['status']}")
        time.sleep(poll_seconds)
    return found
