"""Lists of jobs as people ask for them: searched, filtered and sorted, in pages, on both databases."""

from typing import Any, get_args

import pytest
from backends import PROJECT, add_dataset, claim, publication, submit
from sqlalchemy import update

from core.database.tables.jobs import Job
from core.domain.errors import InvalidRequest
from core.domain.jobs.job_queries import JobFilter, JobSort
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.cursors import encode_cursor
from core.services.jobs import jobs

ACCURACIES = (0.5, None, 0.9, 0.7, 0.9)
NAMES = ("beta 0.1", None, "Alpha 100%", "alpha 100_", "Ünlü")


@pytest.fixture
def five(backend: Backend) -> list[str]:
    """Finished jobs, one of them without a held-out result and a name."""
    add_dataset(backend)
    ids = []
    for accuracy, name in zip(ACCURACIES, NAMES, strict=True):
        job_id = submit(backend, name=name).id
        held = claim(backend)
        lifecycle.finish_succeeded(held, publication(backend, held))
        figure = {"value": accuracy, "low": None, "high": None}
        figures = dict.fromkeys(("loss", "reward_accuracy", "reward_margin"), figure)
        results = None if accuracy is None else {"step": 3, "held_out": {"num_rows": 9, **figures}, "training": None}
        changed = update(Job).where(Job.id == job_id).values(results=results)
        backend.database.write(lambda session, changed=changed: session.execute(changed))  # type: ignore[misc]
        ids.append(job_id)
    return ids


def found(backend: Backend, **where: Any) -> list[str]:
    return [job.id for job in jobs.list_page(backend, PROJECT, JobFilter(**where)).data]


@pytest.mark.parametrize("sort", get_args(JobSort))
def test_pages_of_every_order_hold_every_job_once(backend: Backend, five: list[str], sort: JobSort) -> None:
    where, seen, cursor = JobFilter(sort=sort), [], None
    while True:
        page = jobs.list_page(backend, PROJECT, where, limit=2, cursor=cursor)
        seen += [job.id for job in page.data]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == found(backend, sort=sort)
    assert sorted(seen) == five
    expected = {
        "created": five,
        "-created": five[::-1],
        "-accuracy": [five[n] for n in (4, 2, 3, 0, 1)],
        "loss": [five[n] for n in (0, 3, 4, 2, 1)],
        "finished": five,
    }
    if sort in expected:
        assert seen == expected[sort]
    if sort.endswith("name"):
        assert seen[-1] == five[1], "no name comes last"


def test_search_and_filters(backend: Backend, five: list[str]) -> None:
    jobs.patch(backend, PROJECT, five[0], {"metadata": {"tags": "paper, run 2", "notes": "Keep this"}})
    assert found(backend, search="ALPHA") == [five[3], five[2]]
    assert found(backend, search="100%") == [five[2]]
    assert found(backend, search="0_") == [five[3]]
    assert found(backend, search="Ünl") == [five[4]]
    assert found(backend, search="keep") == [five[0]]
    assert found(backend, search=five[1]) == [five[1]]
    assert found(backend, tag="run 2") == found(backend, tag="paper") == [five[0]]
    assert found(backend, tag="run") == []
    assert len(found(backend, variant="dpo", base_model="tiny", dataset_id="ds_1")) == len(five)
    assert found(backend, variant="ipo") == found(backend, base_model="x") == found(backend, dataset_id="x") == []


@pytest.mark.parametrize(
    "cursor", ["x", "[]", '["-accuracy",0.5,"job_1"]', '["accuracy","0.5","job_1"]', '["accuracy",NaN,"j"]']
)
def test_a_cursor_of_another_order_is_refused(backend: Backend, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        jobs.list_page(backend, PROJECT, JobFilter(sort="accuracy"), cursor=encode_cursor(cursor))
