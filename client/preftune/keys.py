"""Keys of a project, for holders of a key of scope admin or operator."""

from typing import Any

from preftune.transport import Resource


class Keys(Resource):
    """Keys within the reach of the client's own: `client.keys`."""

    def create(
        self,
        name: str,
        *,
        scope: str = "write",
        project_id: str | None = None,
        expires_in_seconds: float | None = None,
        keeps_answers: bool = False,
    ) -> dict[str, Any]:
        """Make a key; its `token` is in this answer and never again. Raises ApiError."""
        body = {
            "name": name,
            "scope": scope,
            "project_id": project_id,
            "expires_in_seconds": expires_in_seconds,
            "keeps_answers": keeps_answers or None,
        }
        return self._transport.post("/keys", {k: v for k, v in body.items() if v is not None})

    def list(self, *, project_id: str | None = None) -> list[dict[str, Any]]:
        """Return all keys within reach, newest first, without their secrets."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self._transport.get("/keys", limit=100, cursor=cursor, project_id=project_id)
            found += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def rotate(self, key_id: str, *, grace_seconds: float = 24 * 3600.0) -> dict[str, Any]:
        """Make a like key; the old one works for the grace time. Raises ApiError."""
        return self._transport.post(f"/keys/{key_id}/rotate", {"grace_seconds": grace_seconds})

    def revoke(self, key_id: str) -> None:
        """End a key, within two seconds. Raises ApiError."""
        self._transport.delete(f"/keys/{key_id}")
