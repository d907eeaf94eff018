"""Requests below `/judgements`."""

import time
from typing import Any

from preftune.transport import Transport


class Judgements:
    """Verdicts on pairs of answers, with win rates."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, *, dataset_id: str, judge: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Post a judgement; `judge`: its `kind` with the settings of that kind; `settings`: any field of the API's."""
        body = {"dataset_id": dataset_id, "judge": judge, **settings}
        judgement: dict[str, Any] = self._transport.post("/judgements", body)
        return judgement

    def get(self, judgement_id: str) -> dict[str, Any]:
        judgement: dict[str, Any] = self._transport.get(f"/judgements/{judgement_id}")
        return judgement

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        page: dict[str, Any] = self._transport.get("/judgements", limit=limit, cursor=cursor)
        return page

    def pairs(self, judgement_id: str, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        """Return a page of the pairs with their verdicts."""
        page: dict[str, Any] = self._transport.get(f"/judgements/{judgement_id}/pairs", limit=limit, cursor=cursor)
        return page

    def agreement(self, judgement_id: str, *, against: str) -> dict[str, Any]:
        """Return how often another judgement of the same pairs says the same."""
        found: dict[str, Any] = self._transport.get(f"/judgements/{judgement_id}/agreement", against=against)
        return found

    def cancel(self, judgement_id: str) -> dict[str, Any]:
        judgement: dict[str, Any] = self._transport.post(f"/judgements/{judgement_id}/cancel")
        return judgement

    def delete(self, judgement_id: str) -> None:
        """Delete a judgement that has ended, with its pairs; its dataset stays."""
        self._transport.delete(f"/judgements/{judgement_id}")

    def wait(
        self, judgement_id: str, *, timeout_seconds: float | None = None, poll_seconds: float = 2.0
    ) -> dict[str, Any]:
        """Return the judgement once it has ended. Raises TimeoutError."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            judgement = self.get(judgement_id)
            if judgement["finished_at"] is not None:
                return judgement
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{judgement_id} is still {judgement['status']}")
            time.sleep(poll_seconds)
