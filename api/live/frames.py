"""Server-sent events of a job as bytes, the same for every client at the same position.

`id` is `<metric seq>.<event seq>`: how far a client is that has read the event.
"""

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from api.schemas.jobs import JobState
from core.domain.jobs.job_state import FINAL_STATUSES
from core.services.curves.live import LiveChanges, LiveCursor
from core.services.views import JobView

ID_PATTERN = r"^[0-9]{1,18}\.[0-9]{1,18}$"
HEARTBEAT = b": still here\n\n"
PREAMBLE = b"retry: 2000\n\n"
"""How long a browser waits before it connects again, in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """One page of changes, encoded for sending."""

    cursor: LiveCursor
    has_more: bool
    reset: bytes
    metric: bytes
    events: bytes
    status: bytes
    end: bytes
    """Not empty once the job has ended."""
    standing: tuple[object, ...]
    """What of the status is worth telling at once."""


def parse_id(text: str) -> LiveCursor:
    """Parse the cursor that an `id` (of `ID_PATTERN`) names."""
    metric_seq, event_seq = text.split(".")
    return LiveCursor(metric_seq=int(metric_seq), event_seq=int(event_seq))


def make_frames(changes: LiveChanges, after: LiveCursor) -> Frames:
    """Encode changes in the order: reset, metric, events, status, end."""
    reset = b""
    cursor = after
    if changes.reset:
        cursor = LiveCursor(metric_seq=0, event_seq=after.event_seq)
        reset = _frame("reset", cursor, {"job_id": changes.job.id})
    cursor = LiveCursor(metric_seq=changes.cursor.metric_seq, event_seq=cursor.event_seq)
    metric = _frame("metric", cursor, changes.points) if changes.points else b""
    events = b""
    for event in changes.events:
        cursor = LiveCursor(metric_seq=cursor.metric_seq, event_seq=event.seq)
        events += _frame("event", cursor, event)
    job = changes.job
    is_over = job.status in FINAL_STATUSES and not changes.has_more
    return Frames(
        cursor=cursor,
        has_more=changes.has_more,
        reset=reset,
        metric=metric,
        events=events,
        status=_frame("status", cursor, _status(job)),
        end=end_frame(cursor, job.id, job.status.value) if is_over else b"",
        standing=(job.status, job.desired, job.stage, job.attempt, job.progress.total_steps, job.artifact),
    )


def end_frame(cursor: LiveCursor, job_id: str, status: str) -> bytes:
    """Encode the last event; `status` is the job's, or `deleted`."""
    return _frame("end", cursor, {"job_id": job_id, "status": status})


def _status(job: JobView) -> dict[str, Any]:
    values = asdict(job)
    return {name: values[name] for name in JobState.model_fields}


def _frame(kind: str, cursor: LiveCursor, data: object) -> bytes:
    head = f"id: {cursor.metric_seq}.{cursor.event_seq}\nevent: {kind}\ndata: ".encode()
    return head + orjson.dumps(data, option=orjson.OPT_UTC_Z) + b"\n\n"
