"""Requests below `/generations`."""

import time
from collections.abc import Sequence
from typing import Any

from preftune.transport import Transport


class Generations:
    """What models answer to prompts, as datasets of responses."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, *, models: Sequence[str], **settings: Any) -> dict[str, Any]:
        """Post a generation; `settings`: `dataset_id`, `held_out_of` or `prompts`, and any field of the API's."""
        generation: dict[str, Any] = self._transport.post("/generations", {"models": [*models], **settings})
        return generation

    def get(self, generation_id: str) -> dict[str, Any]:
        generation: dict[str, Any] = self._transport.get(f"/generations/{generation_id}")
        return generation

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        page: dict[str, Any] = self._transport.get("/generations", limit=limit, cursor=cursor)
        return page

    def cancel(self, generation_id: str) -> dict[str, Any]:
        """Cancel a generation; what it has answered is dropped."""
        generation: dict[str, Any] = self._transport.post(f"/generations/{generation_id}/cancel")
        return generation

    def delete(self, generation_id: str) -> None:
        """Delete the record of a generation that has ended; its dataset stays."""
        self._transport.delete(f"/generations/{generation_id}")

    def wait(
        self, generation_id: str, *, timeout_seconds: float | None = None, poll_seconds: float = 2.0
    ) -> dict[str, Any]:
        """Return the generation once it has ended. Raises TimeoutError."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            generation = self.get(generation_id)
            if generation["finished_at"] is not None:
                return generation
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{generation_id} is still {generation['status']}")
            time.sleep(poll_seconds)
