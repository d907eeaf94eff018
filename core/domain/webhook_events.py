"""Webhook events: their types, their signature and when a delivery is tried again (standardwebhooks.com)."""

import base64
import hashlib
import hmac

from core.domain.jobs.job_state import JobStatus

EVENT_TYPES: dict[JobStatus, str] = {
    JobStatus.SUCCEEDED: "fine_tuning.job.succeeded",
    JobStatus.FAILED: "fine_tuning.job.failed",
    JobStatus.CANCELLED: "fine_tuning.job.cancelled",
    JobStatus.PAUSED: "fine_tuning.job.paused",
}
"""The status that a job moves to -> the type of the event; OpenAI has the first three."""
SECRET_PREFIX = "whsec_"
DISABLED_BY_USER = "disabled by its owner"
"""Reason of an endpoint for which no events are kept."""
MAX_AGE_SECONDS = 24 * 3600.0
"""After so long without a success a delivery is given up and its endpoint disabled."""
_DELAYS = (5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
"""Seconds after the first, second … try; the last one holds for all further ones."""


def delay_seconds(num_tries: int) -> float:
    """Return how long to wait after so many tries without success."""
    return float(_DELAYS[min(num_tries, len(_DELAYS)) - 1])


def signature(secrets: list[str], event_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`: a signature for each secret, with spaces between.

    Args:
        secrets: of the form `whsec_<base64>`.
        timestamp: Unix time of this try, in seconds.
    """
    told = f"{event_id}.{timestamp}.".encode() + body
    signed = []
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
        signed.append("v1," + base64.b64encode(hmac.new(key, told, hashlib.sha256).digest()).decode())
    return " ".join(signed)
