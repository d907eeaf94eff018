"""schemathesis: every operation keeps to the OpenAPI document, whatever is sent, with keys and without.

Nothing is left to chance: the same requests every time, up to ids.
"""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from api_server import RunningApi, pairs, serve
from backends import PROJECT

from api.access.shares import Holder
from api.live.waiting import Waiters
from core.domain.access import Scope
from core.services.access import api_keys, projects
from core.storage import keys

KEY = "pt_canary_0123456789abcdef"
CONFIG = """
[auth.wfc]
path = "{keys}"
peers = ["ours", "theirs"]

[generation]
deterministic = true

[checks.negative_data_rejection] # a body may be wrong and too large
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429]

[checks.positive_data_acceptance] # no schema says which models there are, which cursor was given out, what a file holds
enabled = false
"""


@pytest.fixture(scope="module", autouse=True)
def _waits_are_short() -> Iterator[None]:
    """A drawn `?wait=` of up to a minute, again and again, would be most of the run."""
    wait = Waiters.until_ended

    async def briefly(self: Waiters, holder: Holder, what: Hashable, look: Callable[[], Any], seconds: float) -> Any:
        return await wait(self, holder, what, look, min(seconds, 0.2))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Waiters, "until_ended", briefly)
        yield


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningApi, Path]]:
    """With jobs in several states, a dataset, an upload, scores; and the file of two projects' keys."""
    usual = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    folder = Path(tmp_path_factory.mktemp("schema"))
    with serve(folder, api_key=KEY) as api:
        api.http.headers["Authorization"] = f"Bearer {KEY}"
        assert api.http.post("/datasets", content=pairs()).status_code == 201
        assert api.http.post("/uploads", json={"num_bytes": 100}).status_code == 201
        finished = [api.finish_job()["job_id"] for _ in range(3)]
        item = {"prompt": "Why?", "response": "So."}
        assert api.http.post(f"/jobs/{finished[0]}/scores", json={"items": [item]}).status_code == 202
        for _ in range(3):
            api.submit()
        upload = {"bytes": 9, "filename": "p", "mime_type": "a/b", "purpose": "fine-tune"}
        assert api.http.post("/v1/uploads", json=upload).status_code == 200
        row = b'{"line": 1, "prompt": "p", "chosen": "c", "rejected": "r"}\n'
        for name, content in (("original", b"x"), ("rows.jsonl", row), ("issues.jsonl", b"")):
            api.backend.store.put_bytes(keys.dataset_prefix(PROJECT, api.dataset_id()) + name, content)
        projects.create(api.backend, "other")
        tokens = {"ours": KEY, "theirs": api_keys.create(api.backend, "other", "theirs", Scope.ADMIN).token}
        headers = {name: [{"name": "Authorization", "value": f"Bearer {token}"}] for name, token in tokens.items()}
        entries = [{"name": name, "fixedHeaders": fixed} for name, fixed in headers.items()]
        (folder / "keys.json").write_text(json.dumps({"auth": entries}))
        (folder / "schemathesis.toml").write_text(CONFIG.format(keys=folder / "keys.json"))
        yield api, folder
    structlog.configure(**usual)


def check(
    keyed: tuple[RunningApi, Path], phases: str, max_examples: int, seconds: int, document: str = "openapi.json"
) -> int:
    """All of its checks but the one above; returns how many requests were judged."""
    api, folder = keyed
    # A stream lasts as long as its job: test_api_stream.
    options = ["--phases", phases, "--max-examples", str(max_examples), "--exclude-path-regex", "/stream$"]
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", folder / "schemathesis.toml", "run"]
    run = subprocess.run(
        [*command, f"{api.url}/{document}", "--continue-on-failure", "--request-timeout", "20", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert run.returncode == 0, run.stdout[:20_000] + run.stderr
    found = re.search(r"^  (\d+) generated, (\d+) passed", run.stdout, re.MULTILINE)
    assert found, run.stdout
    return int(found[2])


def test_no_request_gets_an_answer_that_is_not_described(keyed: tuple[RunningApi, Path]) -> None:
    """No 5xx, no status, type, header or body but those of the document; no answer without a key or to another's."""
    assert check(keyed, "fuzzing,stateful", max_examples=5, seconds=200) > 200


def test_no_request_of_openais_clients_gets_an_answer_that_is_not_described(keyed: tuple[RunningApi, Path]) -> None:
    """The same over `/v1`: its own document, errors in OpenAI's form."""
    assert check(keyed, "fuzzing,stateful", max_examples=5, seconds=200, document="v1/openapi.json") > 100


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("phases", "max_examples", "least"), [("coverage", 10, 2500), ("examples,fuzzing,stateful", 30, 1000)]
)
def test_at_length(keyed: tuple[RunningApi, Path], phases: str, max_examples: int, least: int) -> None:
    assert check(keyed, phases, max_examples, seconds=1700) > least


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_openais_face_at_length(keyed: tuple[RunningApi, Path]) -> None:
    phases = "coverage,examples,fuzzing,stateful"
    assert check(keyed, phases, max_examples=20, seconds=1700, document="v1/openapi.json") > 1000
