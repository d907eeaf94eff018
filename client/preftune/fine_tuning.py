"""Jobs in the shapes of OpenAI's API, below `/v1/fine_tuning`: for what comes from there."""

from typing import Any

from preftune.transport import Resource


class FineTuning(Resource):
    """Fine-tuning jobs as OpenAI's clients see them: `client.fine_tuning`."""

    def create(self, body: dict[str, Any], *, idempotency_key: str) -> dict[str, Any]:
        """Queue a job; a second call with the key answers the first one's job. Raises ApiError."""
        return self._transport.post("/v1/fine_tuning/jobs", body, idempotency_key=idempotency_key)

    def get(self, job_id: str) -> dict[str, Any]:
        return self._transport.get(f"/v1/fine_tuning/jobs/{job_id}")

    def find(self, metadata: dict[str, str]) -> list[dict[str, Any]]:
        """Return the newest jobs with this metadata, 100 at most."""
        wanted = {f"metadata[{key}]": value for key, value in metadata.items()}
        return self._transport.get_list("/v1/fine_tuning/jobs", limit=100, **wanted)
