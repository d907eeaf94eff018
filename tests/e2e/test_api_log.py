"""A job's log over HTTP, by client and by command: what a failed training printed, and nothing that is secret."""

import sys
from pathlib import Path

import pytest
from api_server import RunningApi, serve
from backends import claim
from toy_jobs import InProcessWorker, submit_toy, wait_for_status
from toy_trainer import Script
from typer.testing import CliRunner

from cli.main import app
from core.domain.access import Scope
from core.domain.jobs.job_logs import MAX_LOG_BYTES
from core.services.access import api_keys, projects
from core.services.attempts.log_parts import append_log
from preftune import Client

ENVIRONMENT, ERROR = "canary-of-the-environment", "canary-of-an-error"
KEY = "pt_canary_0123456789abcdef"
SCRIPT = Script(
    raises=f"no {ENVIRONMENT}; password='{ERROR}'; https://me:{ERROR}@host/x; /home/{ERROR}/x; -----BEGIN PRIVATE "
    f"KEY-----\n{ERROR}\n-----END PRIVATE KEY-----\nend of it\x1b[2J",
    checkpoint_every=1000,
)


def test_a_failed_training_is_read_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", ENVIRONMENT)
    quick = {"poll_seconds": 0.1, "lease_seconds": 1.5, "heartbeat_seconds": 0.1, "sweep_seconds": 0.2}
    with serve(tmp_path, api_key=KEY, **quick) as api, InProcessWorker(api.backend):
        job_id = submit_toy(api.backend, SCRIPT)
        wait_for_status(api.backend, job_id, "failed")
        client = Client(api.url, api_key=KEY)
        text = client.jobs.log(job_id)
        followed = "".join(client.jobs.follow_log(job_id))
        monkeypatch.setenv("PREFTUNE_API_KEY", KEY)
        by_command = CliRunner().invoke(app, ["log", job_id, "--follow", "--url", api.url])
    for attempt in (1, 2, 3):
        assert text.count(f"=== attempt {attempt}, trainer, ") == 1
    assert text.count("Traceback (most recent call last):") == 3
    assert "a library's chatter" in text
    assert "end of it\\x1b[2J" in text
    assert 'File "tests/support/toy_trainer.py", line' in text
    for secret in (ENVIRONMENT, ERROR, str(tmp_path), sys.prefix, "/home"):
        assert secret not in text, secret
    assert followed == text
    assert by_command.exit_code == 0
    assert text in by_command.stdout


def test_who_may_read_it(tmp_path: Path) -> None:
    with serve(tmp_path, api_key=KEY) as api:
        api.http.headers["Authorization"] = f"Bearer {KEY}"
        job_id = api.submit()["id"]
        append_log(claim(api.backend), 0, "a line\n")
        projects.create(api.backend, "other")
        tokens = {scope.value: api_keys.create(api.backend, "default", scope.value, scope).token for scope in Scope}
        tokens["other"] = api_keys.create(api.backend, "other", "other", Scope.ADMIN).token
        answers = {name: ask(api, job_id, token) for name, token in tokens.items()}
    assert answers == {
        "read": (403, "scope-missing"),
        "use": (403, "scope-missing"),
        "write": (200, "a line\n"),
        "admin": (200, "a line\n"),
        "operator": (200, "a line\n"),
        "other": (404, "job-not-found"),
    }


def ask(api: RunningApi, job_id: str, token: str) -> tuple[int, str]:
    answer = api.http.get(f"/jobs/{job_id}/log", headers={"Authorization": f"Bearer {token}"})
    is_text = answer.headers["content-type"] == "text/plain; charset=utf-8"
    return answer.status_code, answer.text if is_text else answer.json()["code"]


def test_it_is_bounded_and_goes_on_where_one_was(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        job_id = api.submit()["id"]
        held = claim(api.backend)
        for number in range(9):
            append_log(held, number, ("ü" * 63 + "\n") * 1500)
        whole = api.http.get(f"/jobs/{job_id}/log")
        end = int(whole.headers["Preftune-Log-End"])
        append_log(held, 9, "newer\n")
        newer = api.http.get(f"/jobs/{job_id}/log", params={"after": end})
        refused = api.http.get(f"/jobs/{job_id}/log", params={"after": -1})
    assert end == 9 * 1500 * 127
    assert len(whole.content) <= MAX_LOG_BYTES
    assert "earlier bytes are cut" in whole.text.splitlines()[0]
    assert newer.text == "newer\n"
    assert refused.status_code == 422
