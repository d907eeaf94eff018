"""Logs of jobs: kept in order, once, bounded, fenced, and gone with the job."""

import pytest
from backends import PROJECT, add_dataset, claim, submit
from sqlalchemy import func, select

from core.database.tables.records import JobLogPart
from core.domain.errors import Fenced, NotFound
from core.domain.jobs.job_logs import MAX_LOG_BYTES, MAX_WRITE_BYTES, SMALL_PART_BYTES
from core.domain.jobs.job_state import AttemptOutcome
from core.services.attempts import lifecycle
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.log_parts import append_log
from core.services.backend import Backend
from core.services.jobs import jobs
from core.services.jobs.logs import read_log


def read(backend: Backend, job_id: str, after: int = 0) -> str:
    return read_log(backend, PROJECT, job_id, after=after).text


def stored(backend: Backend, job_id: str) -> tuple[int, int]:
    """(rows, bytes)"""
    statement = select(func.count(), func.coalesce(func.sum(JobLogPart.num_bytes), 0)).where(
        JobLogPart.job_id == job_id
    )
    rows, num_bytes = backend.database.read(lambda session: session.execute(statement).one())
    return rows, int(num_bytes)


def test_a_log_is_written_once_in_order_and_goes_with_its_job(backend: Backend) -> None:
    add_dataset(backend)
    job_id, other = submit(backend).id, submit(backend).id
    held = claim(backend)
    assert read(backend, job_id) == ""
    append_log(held, 0, "first\n")
    append_log(held, 0, "first\n")  # the answer to the commit was lost
    append_log(held, 1, "größer\n")
    found = read_log(backend, PROJECT, job_id)
    assert (found.text, found.end_bytes) == ("first\ngrößer\n", len("first\ngrößer\n".encode()))
    assert read(backend, job_id, after=6) == "größer\n"
    newer = read_log(backend, PROJECT, job_id, after=found.end_bytes)
    assert (newer.text, newer.end_bytes) == ("", found.end_bytes)
    lifecycle.release(held, AttemptOutcome.DRAINED)
    with pytest.raises(Fenced):
        append_log(held, 2, "late\n")
    again = claim(backend)
    append_log(again, 0, "second attempt\n")
    assert read(backend, job_id) == "first\ngrößer\nsecond attempt\n"
    with pytest.raises(NotFound):
        read_log(backend, "other", job_id)
    assert read(backend, other) == ""
    jobs_end(backend, again)
    jobs.delete(backend, PROJECT, job_id)
    assert stored(backend, job_id) == (0, 0)


def jobs_end(backend: Backend, held: ClaimedJob) -> None:
    lifecycle.finish_failed(held, lifecycle.FailureCode.INTERNAL, "It failed.")


def test_the_tail_is_kept_and_what_was_cut_is_said(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    line = "x" * 1023 + "\n"
    size = MAX_WRITE_BYTES
    for number in range(7):
        append_log(held, number, f"{number:04d}{line[4:]}" * (size // 1024))
    found = read_log(backend, PROJECT, job_id)
    first, _, rest = found.text.partition("\n")
    assert found.end_bytes == 7 * size
    assert MAX_LOG_BYTES - 2048 < len(found.text) <= MAX_LOG_BYTES
    assert first == f"=== {7 * size - len(rest):,} earlier bytes are cut; what follows is of attempt 1 ==="
    assert rest.startswith("0003xxx")
    assert rest.endswith("x\n")
    assert stored(backend, job_id)[1] <= MAX_LOG_BYTES + size
    assert read(backend, job_id, after=7 * size - 1024) == f"0006{line[4:]}", "nothing of it was cut"


def test_a_job_that_prints_little_and_long_has_few_rows(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    for number in range(200):
        append_log(held, number, "a line of a hundred characters ".ljust(99) + "\n")
    rows, num_bytes = stored(backend, job_id)
    assert num_bytes == 20_000
    assert rows == num_bytes // SMALL_PART_BYTES + 1
