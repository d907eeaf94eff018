"""A dataset that the first release took in is compared with its file, and marked with what its rows lack."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, serve
from backends import BASE_MODEL
from sqlalchemy import select

from core.database.tables.datasets import Dataset
from core.datasets.check import check_process
from core.datasets.reading import READER_VERSION
from core.domain.errors import Fenced
from core.services.attempts.claimed_job import ClaimedJob
from core.services.datasets.rereading import reread_next
from core.storage import keys
from worker.attempt.inputs import rows
from worker.attempt.inputs.fetcher import Fetcher
from worker.attempt.stopping import Interrupted, StopReason

CALL = {"type": "function", "function": {"name": "find", "arguments": {"what": "fox"}}}
USER = {"role": "user", "content": "Find it."}
ROWS = [
    {
        "prompt": [USER],
        "chosen": [{"role": "assistant", "content": "I look."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    },
    {
        "prompt": [USER],
        "chosen": [{"role": "assistant", "content": "I look.", "tool_calls": [CALL]}],
        "rejected": [{"role": "assistant", "content": "No."}],
    },
    {
        "prompt": [USER],
        "chosen": [{"role": "assistant", "content": "", "tool_calls": [CALL]}],
        "rejected": [{"role": "assistant", "content": "No."}],
    },
]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[RunningApi]:
    with serve(tmp_path) as running:
        yield running


def upload(api: RunningApi, rows: list[dict[str, Any]]) -> str:
    response = api.http.post("/datasets", content="".join(json.dumps(row) + "\n" for row in rows).encode())
    assert response.status_code == 201, response.text
    found: str = response.json()["id"]
    return found


def age(api: RunningApi, dataset_id: str) -> None:
    """Make it what the first release made of the file: roles and contents only, empty turns set aside, no version."""
    backend = api.backend

    def strip(value: Any) -> Any:
        if isinstance(value, list):
            return [{"role": message["role"], "content": message["content"]} for message in value]
        return value

    def work(session: Any) -> None:
        row = session.scalar(select(Dataset).where(Dataset.id == dataset_id))
        key = keys.dataset_rows(row.project_id, dataset_id)
        old = []
        for line in b"".join(backend.store.read(key)).splitlines():
            parsed = {
                name: strip(value) for name, value in json.loads(line).items() if name not in ("tools", "documents")
            }
            if parsed["chosen"][-1]["content"]:
                old.append(json.dumps(parsed, separators=(",", ":")))
        backend.store.put_bytes(key, ("\n".join(old) + "\n").encode())
        row.num_set_aside += row.num_accepted - len(old)
        row.num_accepted = len(old)
        row.reader_version = row.rereading = None

    backend.database.write(work)


def reread_all(api: RunningApi) -> list[str]:
    """Until nothing is left; the server's own thread may be at it too."""
    done: list[str] = []
    while found := reread_next(api.backend):
        done.append(found)
        assert len(done) < 10, "each dataset is compared once"
    return done


def test_a_set_of_the_first_release_is_marked_with_what_was_dropped(api: RunningApi) -> None:
    new = upload(api, ROWS[:1])
    same = upload(api, [row | {"id": "x"} for row in ROWS[:1]])
    old = upload(api, ROWS)
    age(api, same)
    age(api, old)
    assert set(reread_all(api)) <= {old, same}
    assert [api.http.get(f"/datasets/{name}").json()["rereading"] for name in (new, same)] == [None, None]
    mark = api.http.get(f"/datasets/{old}").json()["rereading"]
    assert mark | {"detail": ""} == {
        "reader_version": READER_VERSION,
        "is_refused": False,
        "detail": "",
        "num_changed": 1,
        "num_added": 1,
        "num_removed": 0,
        "first_line": 2,
        "dropped": {"tool_calls": 1},
    }
    assert "line 2" in mark["detail"]
    assert "tool_calls (1)" in mark["detail"]
    shown = api.http.get(f"/datasets/{old}/rows").json()["data"]
    assert [row["line"] for row in shown] == [1, 2], "the stored rows stay"


def test_sending_the_file_again_gives_an_unmarked_set(api: RunningApi) -> None:
    old = upload(api, ROWS)
    age(api, old)
    reread_all(api)
    content = api.http.get(f"/datasets/{old}/content").content
    fresh = api.http.post("/datasets", content=content).json()
    assert fresh["num_accepted"] == 3
    assert fresh["rereading"] is None
    assert reread_all(api) == []


def test_a_file_that_is_refused_today_is_marked_so(api: RunningApi) -> None:
    text = {"prompt": "What stands there?", "chosen": "A cup.", "rejected": "A horse."}
    old = upload(api, [text])
    age_file(api, old, json.dumps(text | {"images": ["cup.jpg"]}).encode() + b"\n")
    assert set(reread_all(api)) <= {old}
    mark = api.http.get(f"/datasets/{old}").json()["rereading"]
    assert mark["is_refused"]
    assert "'images'" in mark["detail"]


def age_file(api: RunningApi, dataset_id: str, original: bytes) -> None:
    def work(session: Any) -> None:
        row = session.scalar(select(Dataset).where(Dataset.id == dataset_id))
        api.backend.store.put_bytes(keys.dataset_original(row.project_id, dataset_id), original)
        row.reader_version = row.rereading = None

    api.backend.database.write(work)


def test_a_job_on_a_marked_set_says_so(api: RunningApi, tmp_path: Path) -> None:
    old = upload(api, ROWS)
    age(api, old)
    reread_all(api)
    job = api.http.post("/jobs", json={"base_model": BASE_MODEL, "dataset_id": old}).json()
    (event,) = api.http.get(f"/jobs/{job['id']}/events").json()["data"]
    assert event["level"] == "warning"
    assert "An earlier version read this file" in event["message"]


@pytest.mark.parametrize("reason", [Interrupted(StopReason.CANCEL), Fenced("Another attempt holds the job.")])
def test_a_job_that_is_to_stop_does_not_wait_for_the_comparison(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: Exception
) -> None:
    old = upload(api, ROWS)
    age(api, old)
    monkeypatch.setattr(check_process, "_LOOK_SECONDS", 0.01)
    num_looks = 0

    def check() -> None:
        nonlocal num_looks
        num_looks += 1
        raise reason

    claim = ClaimedJob(
        backend=api.backend,
        job_id="job_1",
        project_id="default",
        attempt=1,
        token="t",
        spec={},
        worker="w",
        host="h",
        device="cpu",
    )
    fetcher = Fetcher(claim=claim, work_dir=tmp_path, check=check)
    with pytest.raises(type(reason)):
        rows._tell_other_reading(fetcher, old)
    assert num_looks == 1
