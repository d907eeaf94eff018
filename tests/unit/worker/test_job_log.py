"""The log of an attempt while it is written: bounded, whole while the database is away, and without secrets."""

from types import SimpleNamespace

import pytest

from core.domain.errors import Unavailable
from core.domain.jobs.job_logs import MAX_WRITE_BYTES
from core.services.attempts.claimed_job import ClaimedJob
from core.telemetry.scrubbing import Scrubber
from worker.attempt.nodes.log_tail import MAX_CHARS, LogTail
from worker.attempt.records import job_log
from worker.attempt.records.job_log import MAX_LINE_CHARS, JobLog

CLAIM = ClaimedJob(
    backend=SimpleNamespace(),  # type: ignore[arg-type]
    job_id="job_1",
    project_id="default",
    attempt=2,
    token="t",
    spec={},
    worker="w",
    host="secret-host",
    device="cpu",
)


class Store:
    def __init__(self) -> None:
        self.writes: list[tuple[int, str]] = []
        self.num_failures = 0

    def append(self, _claim: ClaimedJob, number: int, text: str) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise Unavailable("The database is away.")
        assert len(text.encode()) <= MAX_WRITE_BYTES
        self.writes.append((number, text))

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.writes)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(job_log, "append_log", made.append)
    return made


def make_log(*secrets: str) -> JobLog:
    return JobLog(CLAIM, Scrubber(secrets, {}))


def write_all(log: JobLog) -> None:
    for _ in range(100):
        log.write()
        if log.is_empty:
            return
    raise AssertionError("it does not end")


def test_a_write_that_failed_is_repeated_under_its_number(store: Store) -> None:
    log = make_log()
    log.begin("trainer")
    store.num_failures = 1
    log.write()
    log.add("later")
    assert not log.is_empty
    write_all(log)
    assert [number for number, _ in store.writes] == [0, 1]
    assert store.text.startswith("=== attempt 2, trainer, 20")
    assert store.text.endswith(", on cpu ===\nlater\n")
    assert "secret-host" not in store.text


def test_what_comes_too_fast_is_counted(store: Store) -> None:
    log = make_log()
    for number in range(20_000):
        log.add(f"line {number:05d} " + "x" * 40)
    write_all(log)
    first, second, *_, last = store.text.splitlines()
    num_left_out = int(first.split()[1].replace(",", ""))
    assert second.startswith(f"line {num_left_out:05d}")
    assert last.startswith("line 19999")


def test_a_secret_on_a_long_line_is_not_cut_in_two(store: Store) -> None:
    log = make_log("canary-of-a-line")
    log.add("y" * (MAX_LINE_CHARS - 5) + "canary-of-a-line" + "z" * 60_000)
    write_all(log)
    assert "canary" not in store.text
    assert "characters of the line are cut" in store.text
    assert len(store.text) < MAX_LINE_CHARS + 100


def test_the_worst_characters_keep_a_write_within_its_limit(store: Store) -> None:
    log = make_log()
    for _ in range(60):
        log.add("\u202e" * MAX_LINE_CHARS)
        log.add("😀" * MAX_LINE_CHARS)
    write_all(log)
    assert store.writes


def test_the_last_lines_of_another_node_are_bounded_and_have_no_secrets() -> None:
    tail = LogTail(Scrubber(["canary-of-a-node"], {}))
    for number in range(300):
        tail.add(f"line {number}")
    tail.add("canary-of-a-node and what follows")
    assert tail.lines() == [f"line {number}" for number in range(101, 300)] + ["*** and what follows"]
    for _ in range(20):
        tail.add("x" * 3000)
    assert sum(map(len, tail.lines())) <= MAX_CHARS
