"""Curves on a tracking server while they grow; and whatever that server or its client does, the job does not notice.

The real clients and servers are heavy: `make test-exports` installs them beside the project and runs all of this.
"""

import importlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from backends import point
from toy_jobs import InProcessWorker, check_succeeded, submit_toy, wait_for, wait_for_status
from toy_trainer import Script

from core.domain.jobs.job_state import JobStatus
from core.services.backend import Backend
from core.settings import Settings, SettingsError
from worker.attempt.records import tracking
from worker.attempt.records.tracking import LiveExport, Target, targets_of
from worker.processes.tracking_client import flatten, run_names

needs_mlflow = pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
MUTE = (sys.executable, "-c", "import time; time.sleep(600)")
DYING = (sys.executable, "-c", "import sys; sys.stdin.readline(); sys.exit(3)")
OPTIONS = {"tracking_uri": "http://127.0.0.1:9", "experiment": "e"}
SPEC = {"base_model": "tiny", "beta": 0.1, "dpo": {"epochs": 1, "learning_rate": 5e-6}}


def target(*command: str) -> Target:
    return Target(client="mlflow", options=OPTIONS, command=command)


def keeping(path: Path) -> Target:
    """Its process keeps what it is told."""
    return target(sys.executable, "-c", f"import sys; open({str(path)!r}, 'wb').write(sys.stdin.buffer.read())")


def never() -> None:
    return None


def test_a_target_hears_the_job_its_points_and_its_end(tmp_path: Path) -> None:
    export = LiveExport([keeping(tmp_path / "heard")], "job_1")
    export.add([point(1, 0.7), point(2, 0.6, other=1.0)], SPEC)
    export.add([point(3, 0.5)], SPEC)
    export.close(lambda: JobStatus.SUCCEEDED)
    first, *middle, last = [json.loads(line) for line in (tmp_path / "heard").read_text().splitlines()]
    assert (first["client"], first["options"], first["job_id"]) == ("mlflow", OPTIONS, "job_1")
    assert first["spec"] == SPEC
    heard = [told for message in middle for told in message["points"]]
    assert [(told["stage"], told["split"], told["step"]) for told in heard] == [("dpo", "train", s) for s in (1, 2, 3)]
    assert heard[1]["values"] == {"loss": 0.6, "other": 1.0}
    assert abs(heard[0]["at"] / 1000 - time.time()) < 60
    assert last == {"status": "succeeded"}


@pytest.mark.parametrize("command", [MUTE, DYING, ("/nowhere/to/be/found",)])
def test_a_target_that_hangs_or_dies_is_not_waited_for(command: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.5)
    export = LiveExport([target(*command), target(*command)], "job_1")
    batch = [point(step, 0.5, **{f"value_{i}": 0.5 for i in range(20)}) for step in range(500)]
    started = time.monotonic()
    for _ in range(30):  # three times what a queue holds, and far more than a pipe
        export.add(batch, SPEC)
    export.close(lambda: JobStatus.SUCCEEDED)
    assert time.monotonic() - started < 10
    assert not subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "time.sleep.600"], capture_output=True).stdout


def test_the_newest_points_are_kept_for_a_slow_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "MAX_WAITING", 10)
    gate = tmp_path / "gate"
    late = (
        f"import os, sys, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
        f"open({str(tmp_path / 'heard')!r}, 'wb').write(sys.stdin.buffer.read())"
    )
    export = LiveExport([target(sys.executable, "-c", late)], "job_1")
    big = {f"value_{i}": 0.123456789 for i in range(500)}
    for step in range(200):
        export.add([point(step, 0.5, **big)], SPEC)
    gate.touch()
    export.close(never)
    messages = [json.loads(line) for line in (tmp_path / "heard").read_text().splitlines()]
    steps = [told["step"] for message in messages[1:-1] for told in message["points"]]
    assert steps == sorted(steps)
    assert steps[-10:] == list(range(190, 200))
    assert len(steps) < 150
    assert messages[-1] == {"status": None}


def test_a_job_whose_export_hangs_runs_and_ends_as_ever(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.5)
    script = Script(steps=20)
    job_id = submit_toy(backend, script)
    with InProcessWorker(backend, targets=[target(*MUTE)]):
        wait_for_status(backend, job_id, "succeeded")
    check_succeeded(backend, job_id, script)


def test_a_target_without_its_client_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert targets_of(Settings()) == []
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'preftune-service\[mlflow\]'"):
        targets_of(Settings(mlflow_tracking_uri="http://127.0.0.1:5000"))
    with pytest.raises(SettingsError, match=r"pip install 'preftune-service\[wandb\]'"):
        targets_of(Settings(wandb_project="mine"))


def test_a_spec_becomes_flat_parameters() -> None:
    spec = {"beta": 0.1, "dpo": {"epochs": 1, "optimizer": "adamw"}, "lora": None, "sample_prompts": ["é"]}
    assert dict(flatten(spec)) == {
        "beta": "0.1",
        "dpo.epochs": "1",
        "dpo.optimizer": "adamw",
        "lora": "null",
        "sample_prompts": '["\\u00e9"]',
    }


def test_a_run_is_named_as_the_job_asks() -> None:
    assert run_names("job_1", {"tracking": {"run_name": "mine", "tags": ["a"]}}) == ("mine", ["a"])
    assert run_names("job_1", {"tracking": {"run_name": None, "tags": []}}) == ("job_1", [])
    assert run_names("job_1", {}) == ("job_1", [])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """A real tracking server over files."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", (folder / "runs").as_uri(), "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = (folder / "server.log").open("ab")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
        try:
            return httpx.get(f"{url}/health", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_for(answers, "the tracking server", 120)
        yield url
    finally:
        os.killpg(server.pid, 9)
        server.wait(20)
        log.close()


def api(url: str, method: str, path: str, **fields: Any) -> dict[str, Any]:
    keyword = "params" if method == "GET" else "json"
    answer = httpx.request(method, f"{url}/api/2.0/mlflow/{path}", timeout=30, **{keyword: fields})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def runs_of(url: str, job_id: str) -> list[dict[str, Any]]:
    try:
        experiment = api(url, "GET", "experiments/get-by-name", experiment_name="preferences")["experiment"]
    except httpx.HTTPStatusError:
        return []
    found = api(url, "POST", "runs/search", experiment_ids=[experiment["experiment_id"]]).get("runs", [])
    return [run for run in found if {"key": "preftune.job_id", "value": job_id} in run["data"]["tags"]]


def history(url: str, run: dict[str, Any], key: str) -> list[tuple[int, float]]:
    found = api(url, "GET", "metrics/get-history", run_id=run["info"]["run_id"], metric_key=key, max_results=25000)
    return [(int(metric["step"]), metric["value"]) for metric in found.get("metrics", [])]


def settings_for(url: str) -> Settings:
    return Settings(mlflow_tracking_uri=url, mlflow_experiment="preferences")


@pytest.mark.slow
@pytest.mark.timeout(300)
@needs_mlflow
def test_a_job_is_on_the_mlflow_server_while_it_runs_and_when_it_has_ended(backend: Backend, tmp_path: Path) -> None:
    script = Script(steps=40, step_seconds=0.4)
    with mlflow_server(tmp_path / "mlflow", free_port()) as url:
        job_id = submit_toy(backend, script)
        with InProcessWorker(backend, targets=targets_of(settings_for(url))):
            wait_for(lambda: runs_of(url, job_id), "the run on the server", 60)
            wait_for(lambda: history(url, runs_of(url, job_id)[0], "sft/train/loss"), "points on the server", 60)
            assert runs_of(url, job_id)[0]["info"]["status"] == "RUNNING"
            wait_for_status(backend, job_id, "succeeded", seconds=120)
        (run,) = runs_of(url, job_id)
        assert run["info"]["status"] == "FINISHED"
        for stage in ("sft", "dpo"):
            assert [step for step, _ in history(url, run, f"{stage}/train/loss")] == list(range(1, 41))
        parameters = {found["key"]: found["value"] for found in run["data"]["params"]}
        assert parameters["variant"] == "dpo"
        assert parameters["beta"] == "0.1"
    check_succeeded(backend, job_id, script)


@pytest.mark.slow
@pytest.mark.timeout(300)
@needs_mlflow
def test_what_was_said_while_the_mlflow_server_was_away_follows_and_a_second_attempt_goes_on(tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "mlflow"
    with mlflow_server(folder, port) as url:
        first = LiveExport(targets_of(settings_for(url)), "job_1")
        first.add([point(step, 0.5) for step in range(1, 11)], SPEC)
        wait_for(
            lambda: runs_of(url, "job_1") and history(url, runs_of(url, "job_1")[0], "dpo/train/loss"), "points", 60
        )
    first.add([point(step, 0.4) for step in range(11, 21)], SPEC)
    with mlflow_server(folder, port) as url:
        wait_for(lambda: len(history(url, runs_of(url, "job_1")[0], "dpo/train/loss")) == 20, "the rest", 120)
        first.close(never)
        assert runs_of(url, "job_1")[0]["info"]["status"] == "RUNNING", "the attempt has ended, not the job"

        second = LiveExport(targets_of(settings_for(url)), "job_1")
        second.add([point(21, 0.3), point(20, 0.45, split="validation")], SPEC)
        second.close(lambda: JobStatus.FAILED)
        (run,) = runs_of(url, "job_1")
        assert run["info"]["status"] == "FAILED"
        assert history(url, run, "dpo/train/loss") == [
            *((step, 0.5) for step in range(1, 11)),
            *((step, 0.4) for step in range(11, 21)),
            (21, 0.3),
        ]
        assert history(url, run, "dpo/validation/loss") == [(20, 0.45)]


def offline_records(folder: Path, kind: str) -> list[Any]:
    """What W&B's client has written down to be sent later."""
    protocol = importlib.import_module("wandb.proto.wandb_internal_pb2")
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for body in log_records(path.read_bytes()):
            record = protocol.Record()
            record.ParseFromString(body)
            if record.WhichOneof("record_type") == kind:
                found.append(getattr(record, kind))
    return found


def log_records(data: bytes) -> Iterator[bytes]:
    """LevelDB's log format behind a head of 7 bytes: blocks of 32 KiB with pieces of (checksum, length, type)."""
    assert data.startswith(b":W&B")
    place, pieces = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        pieces += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield pieces
            pieces = b""


@pytest.mark.slow
@pytest.mark.timeout(300)
@needs_wandb
def test_wandb_keeps_the_curves_of_a_job_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 120.0)
    export = LiveExport(targets_of(Settings(wandb_project="preferences")), "job_1")
    export.add([point(step, 0.5) for step in (1, 2, 3)], SPEC)
    export.add([point(3, 0.25, split="validation"), point(2, 0.75)], SPEC)
    export.close(lambda: JobStatus.SUCCEEDED)

    (run,) = offline_records(tmp_path, "run")
    assert (run.run_id, run.project) == ("job_1", "preferences")
    rows = [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        for row in offline_records(tmp_path, "history")
    ]
    losses = [(row["dpo/step"], row["dpo/train/loss"]) for row in rows if "dpo/train/loss" in row]
    assert losses == [(1, 0.5), (2, 0.5), (3, 0.5), (2, 0.75)], "a step that is taken again is no step back"
    assert [(row["dpo/step"], row["dpo/validation/loss"]) for row in rows if "dpo/validation/loss" in row] == [
        (3, 0.25)
    ]
    assert [end.exit_code for end in offline_records(tmp_path, "exit")] == [0]
