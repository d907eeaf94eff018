"""The log of a job: what its trainings have printed, the tail of it."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.database.repositories import job_logs
from core.database.tables.records import JobLogPart
from core.domain.jobs.job_logs import MAX_LOG_BYTES
from core.services.backend import Backend
from core.services.jobs import jobs
from core.services.transactions import reads

_NOTICE_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class JobLog:
    text: str
    """Text of at most `MAX_LOG_BYTES` in UTF-8; begins with a line that says what was cut, if anything was."""
    end_bytes: int
    """What the job had printed by then: `after` of the next look."""


def read_log(backend: Backend, project_id: str, job_id: str, *, after: int = 0) -> JobLog:
    """What was printed behind the first `after` bytes. Raises JobNotFound."""
    parts = _list_parts(backend, project_id, job_id, after)
    if not parts:
        return JobLog(text="", end_bytes=after)
    end = parts[-1].start_bytes + parts[-1].num_bytes
    content = b"".join(part.text.encode() for part in parts)[max(0, after - parts[0].start_bytes) :]
    tail = _tail(content)
    num_cut = end - len(tail) - after
    notice = _notice(num_cut, _attempt_at(parts, end - len(tail))) if num_cut > 0 else ""
    return JobLog(text=notice + tail.decode(errors="replace"), end_bytes=end)


@reads
def _list_parts(session: Session, project_id: str, job_id: str, after: int) -> list[JobLogPart]:
    jobs.find(session, project_id, job_id)
    return job_logs.list_parts(session, job_id, after=after)


def _tail(content: bytes) -> bytes:
    """Whole lines of the end, with room for the notice."""
    room = MAX_LOG_BYTES - _NOTICE_BYTES
    if len(content) <= room:
        return content
    return content[content.find(b"\n", len(content) - room - 1) + 1 :]


def _attempt_at(parts: list[JobLogPart], place: int) -> int:
    return next(part.attempt for part in parts if part.start_bytes + part.num_bytes > place)


def _notice(num_bytes: int, attempt: int) -> str:
    return f"=== {num_bytes:,} earlier bytes are cut; what follows is of attempt {attempt} ===\n"
