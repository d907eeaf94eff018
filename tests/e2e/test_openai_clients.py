"""OpenAI's own clients, unmodified, each in an environment of its own (`make openai-clients`), drive `/v1`."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, pairs, serve
from backends import BASE_MODEL, checkpoint_with_policy, claim, point, publication
from played_jobs import learn
from receiver import receive
from relay import Relay

from core.domain.jobs.job_state import Stage
from core.services.attempts import lifecycle, recording

ROOT = Path(__file__).resolve().parents[2]
WANDB_SESSION = ROOT / "tests" / "support" / "wandb_session.py"
SESSION = ROOT / "tests" / "support" / "openai_session.py"
CLIENTS = ("1.109.1", "2.54.0", "3.57.0")
KEY = "pt_openai_clients_0123456789abcdef"
LOST_ANSWERS = 3


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = Path(tmp_path_factory.mktemp("openai"))
    with serve(folder, api_key=KEY, webhook_allowed_hosts="127.0.0.1", sweep_seconds=0.2) as running:
        running.http.headers["Authorization"] = f"Bearer {KEY}"
        yield running


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.mark.parametrize("version", CLIENTS)
def test_an_unmodified_client_drives_a_job_from_file_to_policy(
    api: RunningApi, version: str, tmp_path: Path, stack: ExitStack
) -> None:
    python = ROOT / ".venv" / "openai" / version / "bin" / "python"
    if not python.exists():
        pytest.skip("no environment with this client; `make openai-clients` makes it")

    environment = os.environ | {"OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    log = stack.enter_context((tmp_path / "log").open("w+"))
    session = stack.enter_context(
        subprocess.Popen(
            [python, SESSION, BASE_MODEL],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    )
    stack.callback(session.kill)
    assert session.stdin
    assert session.stdout

    def run(phase: str, state: dict[str, Any] | None = None, url: str = api.url) -> Any:
        print(json.dumps((phase, url, state)), file=session.stdin, flush=True)
        answer = session.stdout.readline()
        assert answer, (tmp_path / "log").read_text()
        return json.loads(answer)

    state = run("before")
    receiver = stack.enter_context(receive())
    made = api.http.post("/webhooks", json={"url": receiver.url, "event_types": ["fine_tuning.job.succeeded"]}).json()
    held = claim(api.backend)
    lifecycle.begin(held)
    learn(api, held, range(1, 7))
    checkpoint_with_policy(api.backend, held, 3, {"config.json": b"{}"})
    lifecycle.finish_succeeded(held, publication(api.backend, held))
    run("after", state)
    came = receiver.wait_for(bool)[0]
    told = {"headers": came.headers, "body": came.body.decode(), "secret": made["signing_secret"]}
    run("unwrap", told | {"job_id": held.job_id})
    if version.startswith("3."):
        run("endpoints", {"url": receiver.url})
    file_id = state["file_id"]
    run("supervised", {"file_id": file_id})
    run("chain", {"file_id": file_id, "job_id": play_supervised(api)})
    before = num_lost(api)
    with Relay(api.url, answers_to_lose=LOST_ANSWERS) as relay:
        run("lost", state, relay.url)
        assert relay.num_connections == LOST_ANSWERS + 1
    assert num_lost(api) == before + 1
    cancel_all(api)


def test_wandbs_importer_reads_a_finished_job(api: RunningApi, tmp_path: Path) -> None:
    python = ROOT / ".venv" / "openai" / "wandb" / "bin" / "python"
    if not python.exists():
        pytest.skip("no environment with W&B's package; `make openai-clients` makes it")
    form, files = {"purpose": "fine-tune"}, {"file": ("pairs.jsonl", pairs())}
    file_id = api.http.post("/v1/files", data=form, files=files).json()["id"]
    body = {"model": BASE_MODEL, "training_file": file_id, "validation_file": file_id, "method": {"type": "dpo"}}
    job_id = api.http.post("/v1/fine_tuning/jobs", json=body).json()["id"]
    held = claim(api.backend)
    lifecycle.begin(held)
    learn(api, held, range(1, 4))
    lifecycle.finish_succeeded(held, publication(api.backend, held))
    folders = {name: str(tmp_path) for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR")}
    environment = (
        os.environ | folders | {"OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1", "WANDB_ERROR_REPORTING": "false"}
    )
    command = [python, WANDB_SESSION, api.url, job_id, tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    curve = [(point["step"], point["train_loss"], point["train_reward_margin"]) for point in read["logged"]]
    assert curve == [(step, 0.693 - 0.01 * step, 0.1 * step) for step in range(1, 4)]
    assert read["inputs"] == {f"{prefix}-{file_id}": [pairs().decode()] for prefix in ("train", "valid")}
    assert (read["config"]["id"], read["config"]["trained_tokens"]) == (job_id, "300")
    model = api.http.get(f"/v1/fine_tuning/jobs/{job_id}").json()["fine_tuned_model"]
    assert read["summary"] == {"fine_tuned_model": model, "status": "succeeded"}


def play_supervised(api: RunningApi) -> str:
    """What a worker does for a supervised job."""
    held = claim(api.backend)
    lifecycle.begin(held)
    figures = [(1, "train", 0.25), (2, "train", 0.5), (2, "validation", 0.5)]
    points = [point(step, 2.0, "sft", split, mean_token_accuracy=share) for step, split, share in figures]
    recording.record_points(held, points)
    checkpoint_with_policy(api.backend, held, 2, {"config.json": b"{}"}, stage=Stage.SFT)
    lifecycle.finish_succeeded(held, publication(api.backend, held))
    return held.job_id


def num_lost(api: RunningApi) -> int:
    return len(api.http.get("/jobs", params={"metadata.answers": "lost", "limit": 100}).json()["data"])


def cancel_all(api: RunningApi) -> None:
    for job in api.http.get("/jobs", params={"status": "queued", "limit": 100}).json()["data"]:
        api.http.post(f"/jobs/{job['id']}/cancel")
