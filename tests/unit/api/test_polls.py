"""Polls of one job share a look at the database, and none gets one that began before it asked."""

import asyncio
import threading
import time
from typing import cast

import pytest

from api.live.polls import Polls
from core.domain.errors import Unavailable
from core.domain.jobs.job_queries import CurveHead
from core.domain.jobs.job_state import JobStatus
from core.services.backend import Backend
from core.services.curves import pages as metrics
from core.services.curves.pages import MetricsQuery
from core.services.curves.recent_points import RecentPoints

LOOK_SECONDS = 0.02


class Database:
    """Counts looks; each tells what was written when it began."""

    def __init__(self) -> None:
        self.written = 1
        self.num_looks = self.num_at_once = self.most_at_once = 0
        self.is_away = False
        self._lock = threading.Lock()

    def look(self, backend: Backend, recent: RecentPoints, project_id: str, job_id: str) -> CurveHead:
        with self._lock:
            self.num_looks += 1
            self.num_at_once += 1
            self.most_at_once = max(self.most_at_once, self.num_at_once)
            newest = self.written
        time.sleep(LOOK_SECONDS)
        with self._lock:
            self.num_at_once -= 1
        if self.is_away:
            raise Unavailable("away")
        recent.extend(job_id, 0, newest, lambda after: [(seq, b"%d" % seq) for seq in range(after + 1, newest + 1)])
        return CurveHead(JobStatus.RUNNING, newest, 0)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    database = Database()
    monkeypatch.setattr(metrics, "look", database.look)
    return database


def make_polls() -> Polls:
    return Polls(cast(Backend, None))


def test_hundreds_of_polls_cost_few_looks(database: Database) -> None:
    async def scene() -> list[bytes]:
        polls = make_polls()

        async def one(number: int) -> bytes:
            await asyncio.sleep(number * 0.0005)
            return await polls.page("prj", "job", MetricsQuery())

        pages = await asyncio.gather(*(one(number) for number in range(200)))
        assert not polls._looks
        return pages

    pages = asyncio.run(scene())
    assert {page.count(b'"points":[1]') for page in pages} == {1}
    assert database.num_looks <= 20
    assert database.most_at_once == 1


def test_an_answer_holds_all_that_was_written_before_the_question(database: Database) -> None:
    async def scene() -> None:
        polls = make_polls()
        for _ in range(20):
            early = asyncio.create_task(polls.page("prj", "job", MetricsQuery()))
            await asyncio.sleep(LOOK_SECONDS / 4)  # its look has begun
            database.written += 1
            expected = b'"last_seq":%d,' % database.written
            assert expected in await polls.page("prj", "job", MetricsQuery())
            await early

    asyncio.run(scene())


def test_whoever_waits_hears_of_an_outage_and_the_next_asks_again(database: Database) -> None:
    async def scene() -> None:
        polls = make_polls()
        database.is_away = True
        asked = [polls.page("prj", "job", MetricsQuery()) for _ in range(5)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable] * 5
        database.is_away = False
        assert b'"last_seq":1,' in await polls.page("prj", "job", MetricsQuery())

    asyncio.run(scene())


def test_a_client_that_goes_leaves_the_others_their_look(database: Database) -> None:
    async def scene() -> None:
        polls = make_polls()
        gone = asyncio.create_task(polls.page("prj", "job", MetricsQuery()))
        stays = asyncio.create_task(polls.page("prj", "job", MetricsQuery()))
        await asyncio.sleep(LOOK_SECONDS / 4)
        gone.cancel()
        assert b'"last_seq":1,' in await stays

    asyncio.run(scene())
