"""Datasets that the first release (7b06ab9) took in, with rows that its own code wrote, under this version.

No job trains on such rows before they were compared with what their file gives today, and the job says what they lack.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from backends import PROJECT, claim, make_backend, submit

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.session import Database
from core.datasets.reading import READER_VERSION
from core.domain.jobs.event_kinds import ROWS_READ_OTHERWISE
from core.services.attempts.inputs import find_inputs
from core.services.backend import Backend
from core.services.data_warnings import NOT_COMPARED, READ_OTHERWISE
from core.services.datasets import datasets
from core.services.jobs import events, steering
from worker.attempt.inputs.fetcher import Fetcher
from worker.attempt.inputs.rows import fetch_rows

UPLOADER = Path(__file__).with_name("released_upload.py")
CALL = {"type": "function", "function": {"name": "find", "arguments": {"what": "fox"}}}
USER, NO = {"role": "user", "content": "Find it."}, [{"role": "assistant", "content": "No."}]
FILES: dict[str, list[dict[str, Any]]] = {
    "same": [{"prompt": f"p{number}", "chosen": "yes", "rejected": "no"} for number in range(4)],
    "calls": [
        {"prompt": [USER], "chosen": [{"role": "assistant", "content": "I look."}], "rejected": NO},
        {"prompt": [USER], "chosen": [{"role": "assistant", "content": "Wait.", "tool_calls": [CALL]}], "rejected": NO},
    ],
    "system": [
        {"system": "Be brief.", "prompt": f"q{number}", "chosen": "yes", "rejected": "no, never"} for number in "ab"
    ],
    "verdicts": [
        {"prompt": f"p{number}", "response_1": "one", "response_2": "two", "preference": number % 2}
        for number in range(4)
    ],
}


@pytest.fixture
def released(released_code: Path, tmp_path: Path, url: str) -> tuple[Backend, dict[str, str]]:
    """This version on the data of the release, and its datasets by name."""
    paths = []
    for name, rows in FILES.items():
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    environment = {**os.environ, "PYTHONPATH": f"{released_code}:{released_code / 'tests'}", "PYTHONSAFEPATH": "1"}
    command = [sys.executable, str(UPLOADER), str(tmp_path), url, *map(str, paths)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    made: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    upgrade(url)
    return make_backend(tmp_path, Database(open_engine(url))), made


def start(backend: Backend, job_id: str, folder: Path) -> tuple[Path, list[Any]]:
    """What a worker does before it trains; the rows, and the events of the reading."""
    held = claim(backend)
    assert held.job_id == job_id
    folder.mkdir()
    fetcher = Fetcher(claim=held, work_dir=folder, check=lambda: None)
    rows = fetch_rows(fetcher, find_inputs(backend, held).rows, "rows.jsonl")
    found = [event for event in events.list_events(backend, PROJECT, job_id) if event.kind == ROWS_READ_OTHERWISE]
    return rows, found


def warnings(backend: Backend, dataset_id: str) -> dict[str, str]:
    return {warning.code: warning.detail for warning in datasets.get(backend, PROJECT, dataset_id).warnings}


@pytest.mark.parametrize(
    ("name", "is_refused", "words"),
    [
        ("calls", False, ["line 2", "tool_calls (1)", "send it again"]),
        ("system", False, ["2 lines would have other rows", "system (2)", "send it again"]),
        ("verdicts", True, ["count from 0 or from 1", "values=", "Send the file again"]),
    ],
)
def test_a_job_on_rows_of_the_release_says_what_they_lack_before_it_trains(
    released: tuple[Backend, dict[str, str]], tmp_path: Path, name: str, is_refused: bool, words: list[str]
) -> None:
    backend, made = released
    assert NOT_COMPARED in warnings(backend, made[name])
    job = submit(backend, dataset_id=made[name])
    (queued,) = events.list_events(backend, PROJECT, job.id)
    assert (queued.level, NOT_COMPARED in str(queued.data)) == ("warning", True)

    rows, (event,) = start(backend, job.id, tmp_path / "first")

    key = datasets.get(backend, PROJECT, made[name])
    assert key.rereading is not None
    assert (key.rereading["reader_version"], key.rereading["is_refused"]) == (READER_VERSION, is_refused)
    assert event.level == "warning"
    assert [word for word in words if word not in event.message] == []
    assert warnings(backend, made[name])[READ_OTHERWISE] == key.rereading["detail"]
    assert rows.read_bytes(), "the job trains on the rows as they were read, and says so"

    steering.cancel(backend, PROJECT, job.id)
    again = submit(backend, dataset_id=made[name])
    (queued,) = events.list_events(backend, PROJECT, again.id)
    assert key.rereading["detail"] in queued.message, "known by now, so said at once"


def test_rows_that_are_read_alike_are_not_marked(released: tuple[Backend, dict[str, str]], tmp_path: Path) -> None:
    backend, made = released
    job = submit(backend, dataset_id=made["same"])
    rows, marks = start(backend, job.id, tmp_path / "first")
    assert marks == []
    assert rows.read_bytes().count(b"\n") == len(FILES["same"])
    assert not {NOT_COMPARED, READ_OTHERWISE} & warnings(backend, made["same"]).keys()
