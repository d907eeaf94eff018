"""Requests below `/sweeps`."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from preftune.transport import Resource, wait_for_end


class Sweeps(Resource):
    """Sweeps: many jobs that differ in a few settings, as one."""

    def create(self, *, job: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Post a sweep of a job; `settings`: `grid`, `random` or `members`, and any further field of `POST /sweeps`."""
        return self._transport.post("/sweeps", {"job": job, **settings})

    def preview(self, *, job: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Return the members that `create` would make and what they would take together."""
        return self._transport.post("/sweeps/preview", {"job": job, **settings})

    def get(self, sweep_id: str) -> dict[str, Any]:
        return self._transport.get(f"/sweeps/{sweep_id}")

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        return self._transport.get("/sweeps", limit=limit, cursor=cursor)

    def events(self, sweep_id: str, *, after: int = 0) -> dict[str, Any]:
        """Return a page of what happened and what was decided at its rungs, oldest first."""
        return self._transport.get(f"/sweeps/{sweep_id}/events", after=after)

    def comparison(self, sweep_id: str, *, against: str | None = None) -> dict[str, Any]:
        """Compare the members: accuracy against divergence, the setting to take, paired differences, what differs."""
        return self._transport.get(f"/sweeps/{sweep_id}/comparison", against=against)

    def comparison_text(self, sweep_id: str) -> str:
        """Return the comparison as plain text."""
        return self._transport.get_text(f"/sweeps/{sweep_id}/comparison.txt").text

    def comparison_html(self, sweep_id: str) -> str:
        """Return the comparison as one HTML file."""
        return self._transport.get_text(f"/sweeps/{sweep_id}/comparison.html").text

    def cancel(self, sweep_id: str) -> dict[str, Any]:
        """Cancel the sweep and all members that have not ended."""
        return self._steer(sweep_id, "cancel")

    def pause(self, sweep_id: str) -> dict[str, Any]:
        """Pause all members at a checkpoint each."""
        return self._steer(sweep_id, "pause")

    def resume(self, sweep_id: str) -> dict[str, Any]:
        return self._steer(sweep_id, "resume")

    def extend(self, sweep_id: str, members: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Add members, each by its own settings."""
        return self._transport.post(f"/sweeps/{sweep_id}/extend", {"members": [*members]})

    def delete(self, sweep_id: str) -> None:
        """Delete the record of a sweep that has ended; its jobs stay."""
        self._transport.delete(f"/sweeps/{sweep_id}")

    def wait(self, sweep_id: str, *, timeout_seconds: float | None = None, poll_seconds: float = 2.0) -> dict[str, Any]:
        """Return the sweep once all its members have ended. Raises TimeoutError."""
        return wait_for_end(partial(self.get, sweep_id), timeout_seconds, poll_seconds)

    def _steer(self, sweep_id: str, action: str) -> dict[str, Any]:
        return self._transport.post(f"/sweeps/{sweep_id}/{action}")
