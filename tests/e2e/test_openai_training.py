"""A file of OpenAI's documented layout, trained through `/v1` by the real engine on a tiny model."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, serve
from backends import BASE_MODEL, PROJECT
from tiny_models import make_tiny_model
from toy_jobs import InProcessWorker
from trained_jobs import run_to_end

from core.services.jobs import artifacts
from worker.app import TRAINER_COMMAND

LEASE = {"lease_seconds": 6.0, "heartbeat_seconds": 0.2, "poll_seconds": 0.1, "broker_url": "none", "num_threads": 1}
REST = {"lora": None, "max_length": 64, "validation_fraction": 0.25, "precision": "fp32", "reuse": False}
NUM_ROWS = 24


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = Path(tmp_path_factory.mktemp("trained"))
    with serve(folder, device="cpu", **LEASE) as running:
        make_tiny_model(running.settings.models_dir / BASE_MODEL)
        yield running


def turn(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def texts() -> Iterator[tuple[str, str, str]]:
    return ((f"Question {n}?", f"Good answer {n}.", f"Bad {n}!") for n in range(NUM_ROWS))


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def weights(api: RunningApi, job_id: str) -> dict[str, str]:
    """Digests of the published policy's weights, by file."""
    files = artifacts.get(api.backend, PROJECT, job_id).files
    return {file.path: file.sha256 for file in files if file.path.endswith(".safetensors")}


def test_openais_layout_trains_to_the_policy_of_the_native_job(api: RunningApi) -> None:
    theirs = [
        {
            "input": {"messages": turn("user", asked), "tools": [], "parallel_tool_calls": True},
            "preferred_output": turn("assistant", good),
            "non_preferred_output": turn("assistant", bad),
        }
        for asked, good, bad in texts()
    ]
    ours = [
        {"prompt": turn("user", asked), "chosen": turn("assistant", good), "rejected": turn("assistant", bad)}
        for asked, good, bad in texts()
    ]
    form = {"purpose": "fine-tune"}
    file = api.http.post("/v1/files", data=form, files={"file": ("theirs.jsonl", lines(theirs))}).json()
    assert (file["status"], file["kind"]) == ("processed", "preference"), file
    dataset = api.http.post("/datasets", content=lines(ours)).json()
    figures = {"beta": 0.2, "n_epochs": 2, "batch_size": 4}
    dpo = {"type": "dpo", "dpo": {"hyperparameters": figures}}
    body = {"model": BASE_MODEL, "training_file": file["id"], "method": dpo, "seed": 7} | REST
    by_client = api.http.post("/v1/fine_tuning/jobs", json=body).json()
    spec = by_client["spec"]
    stage = {"epochs": 2, "batch_size": 4, "learning_rate": spec["dpo"]["learning_rate"]}
    native = {
        "base_model": BASE_MODEL,
        "dataset_id": dataset["id"],
        "sft": "skip",
        "beta": 0.2,
        "dpo": stage,
        "seed": 7,
    }
    by_hand = api.http.post("/jobs", json=native | REST).json()
    with InProcessWorker(api.backend, TRAINER_COMMAND):
        ends = [run_to_end(api.backend, job["id"]) for job in (by_client, by_hand)]
    assert [end.status.value for end in ends] == ["succeeded"] * 2, [end.error for end in ends]
    assert weights(api, by_client["id"])
    assert weights(api, by_client["id"]) == weights(api, by_hand["id"])
    job = api.http.get(f"/v1/fine_tuning/jobs/{by_client['id']}").json()
    assert job["trained_tokens"] > NUM_ROWS
    table = api.http.get(f"/v1/files/{job['result_files'][0]}/content").text.splitlines()
    start, first = list(csv.DictReader(table))[:2]
    assert (start["step"], first["step"]) == ("0", "1")
    assert float(start["valid_loss"]) == pytest.approx(math.log(2), abs=1e-6)
    assert float(first["train_loss"]) == pytest.approx(math.log(2), abs=1e-6)  # before the first update


def test_a_supervised_file_trains_to_the_policy_of_the_native_job(api: RunningApi) -> None:
    """Both read OpenAI's chats, sent without a method by the client and as demonstrations by hand."""
    chats = lines([{"messages": [*turn("user", asked), *turn("assistant", good)]} for asked, good, _ in texts()])
    file = api.http.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("chats.jsonl", chats)}).json()
    assert (file["status"], file["kind"]) == ("processed", "demonstration"), file
    figures = {"n_epochs": 2, "batch_size": 4}
    body = {"model": BASE_MODEL, "training_file": file["id"], "hyperparameters": figures, "seed": 7} | REST
    by_client = api.http.post("/v1/fine_tuning/jobs", json=body).json()
    assert by_client["method"]["supervised"]["hyperparameters"] | figures == by_client["hyperparameters"], by_client
    stage = {"epochs": 2, "batch_size": 4, "learning_rate": by_client["spec"]["sft"]["learning_rate"]}
    native = {"base_model": BASE_MODEL, "dataset_id": file["id"], "method": "supervised", "sft": stage, "seed": 7}
    by_hand = api.http.post("/jobs", json=native | REST).json()
    with InProcessWorker(api.backend, TRAINER_COMMAND):
        ends = [run_to_end(api.backend, job["id"]) for job in (by_client, by_hand)]
    assert [end.status.value for end in ends] == ["succeeded"] * 2, [end.error for end in ends]
    assert weights(api, by_client["id"])
    assert weights(api, by_client["id"]) == weights(api, by_hand["id"])
    job = api.http.get(f"/v1/fine_tuning/jobs/{by_client['id']}").json()
    table = api.http.get(f"/v1/files/{job['result_files'][0]}/content").text.splitlines()
    rows = list(csv.DictReader(table))
    assert all(0 <= float(row["train_accuracy"]) <= 1 for row in rows if row["train_loss"])
    assert float(rows[-1]["valid_loss"]) < float(rows[0]["valid_loss"])
