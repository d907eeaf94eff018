"""What a running attempt adds to its job's log. Fenced, and safe to repeat."""

from sqlalchemy.orm import Session

from core.database.repositories import job_logs
from core.database.tables.jobs import Job
from core.database.tables.records import JobLogPart
from core.domain.jobs.job_logs import MAX_LOG_BYTES, SMALL_PART_BYTES
from core.services.attempts.claimed_job import ClaimedJob, fenced


@fenced
def append_log(session: Session, job: Job, claim: ClaimedJob, number: int, text: str) -> None:
    """Adds what this attempt's write `number` holds, and lets the oldest parts of the job go.

    Args:
        text: whole lines without secrets and paths, at most `MAX_WRITE_BYTES`.
    """
    num_bytes = len(text.encode())
    last = job_logs.find_last_part(session, job.id)
    end = last.start_bytes + last.num_bytes if last else 0
    own = last if last is not None and last.attempt == claim.attempt else None
    if own is not None and own.last_write >= number:
        return
    if own is not None and own.num_bytes + num_bytes <= SMALL_PART_BYTES:
        own.text += text
        own.num_bytes += num_bytes
        own.last_write = number
    else:
        session.add(_part(job, claim, start_bytes=end, number=number, text=text))
    job_logs.delete_before(session, job.id, end + num_bytes - MAX_LOG_BYTES)


def _part(job: Job, claim: ClaimedJob, *, start_bytes: int, number: int, text: str) -> JobLogPart:
    return JobLogPart(
        job_id=job.id,
        start_bytes=start_bytes,
        project_id=job.project_id,
        attempt=claim.attempt,
        last_write=number,
        num_bytes=len(text.encode()),
        text=text,
    )
