"""The main job through the front door, alike on every deployment: upload, train, watch, download.

The commands users run, as processes, with the real trainer on a tiny model; only URLs differ.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from backends import BASE_MODEL
from deployments import Deployment, run_api, run_embedded
from transformers import AutoModelForCausalLM, AutoTokenizer
from warm_processes import fresh

NUM_PAIRS = 24
STAGE = {"epochs": 3, "batch_size": 4, "learning_rate": 2e-3}
STEPS = 3 * math.ceil(NUM_PAIRS / 4)
FIELDS: dict[str, Any] = {
    "sft": STAGE,
    "dpo": STAGE,
    "validation_fraction": 0,
    "precision": "fp32",
    "checkpoint_every_steps": 10,
    "sample_prompts": ["Name 7?"],
}
JOB_SECONDS = 120


@pytest.fixture(params=["embedded", "postgresql, redis, s3"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    if request.param == "embedded":
        with fresh(), run_embedded(tmp_path) as deployment:
            yield deployment
    else:  # whatever starts there was woken over Redis
        servers = request.getfixturevalue("servers")
        with run_api(tmp_path, servers, POLL_SECONDS="3600") as deployment, deployment.host("worker"):
            yield deployment


def test_from_upload_to_policy(deployment: Deployment, tmp_path: Path) -> None:
    client = deployment.client
    assert client.health()["status"] == "ok"
    dataset = client.datasets.upload(write_pairs(tmp_path / "pairs.jsonl"))
    assert (dataset["status"], dataset["num_accepted"]) == ("ready", NUM_PAIRS)
    job_id = client.jobs.submit(base_model=BASE_MODEL, dataset_id=dataset["id"], **FIELDS)["id"]
    points = watch(deployment, job_id)
    job = client.jobs.wait(job_id, timeout_seconds=JOB_SECONDS)
    assert job["status"] == "succeeded", (job["error"], client.jobs.events(job_id))
    assert job["attempt"] == 1
    check_curves(points)
    (sample,) = client.jobs.samples(job_id)
    assert sample["prompt"] == "Name 7?"
    check_policy(client.jobs.download(job_id, tmp_path / "policy"), job)
    check_estimate(client.jobs.preview(base_model=BASE_MODEL, dataset_id=dataset["id"], **FIELDS)["estimate"], job)


def check_estimate(estimate: dict[str, Any], job: dict[str, Any]) -> None:
    """The next job like this one is expected to take what this one took, less the stages that it would take over."""
    assert estimate["reason"] is None, estimate
    assert estimate["reused_stages"] == {"sft": job["id"], "reference": job["id"]}
    assert (estimate["steps"], estimate["num_train_rows"]) == ({"sft": STEPS, "dpo": STEPS}, NUM_PAIRS)
    assert estimate["tokens"] == job["actual"]["tokens"]
    assert job["actual"]["steps"] == {"sft": STEPS, "dpo": STEPS}
    assert 0 < estimate["seconds"]["low"] < job["actual"]["seconds"]
    assert estimate["peak_memory_bytes"] == pytest.approx(job["actual"]["peak_memory_bytes"], rel=0.15)
    assert estimate["disk"]["artifact_bytes"] == job["artifact"]["num_bytes"]
    assert estimate["queue"] == {"position": 1, "starts_in_seconds": {"low": 0, "high": 0}, "reason": None}


def write_pairs(path: Path) -> Path:
    lines = [
        {"prompt": f"Name {n}?", "chosen": f"A short reply {n}.", "rejected": f"Well, let me see about {n} …"}
        for n in range(NUM_PAIRS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def watch(deployment: Deployment, job_id: str) -> list[dict[str, Any]]:
    """All points; the first came while the job ran."""
    points: list[dict[str, Any]] = []
    for point in deployment.client.jobs.follow_metrics(job_id, poll_seconds=0.1):
        if not points:
            assert deployment.client.jobs.get(job_id)["status"] == "running"
        points.append(point)
    return points


def check_curves(points: list[dict[str, Any]]) -> None:
    train = [(point["stage"], point["step"]) for point in points if point["split"] == "train"]
    assert train == [(stage, step) for stage in ("sft", "dpo") for step in range(1, STEPS + 1)]
    dpo = [point["values"] for point in points if point["stage"] == "dpo" and point["split"] == "train"]
    assert dpo[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert dpo[0]["rewards/margins"] == 0.0
    assert dpo[-1]["rewards/margins"] > 0.0
    assert dpo[-1]["loss"] < dpo[0]["loss"]


def check_policy(folder: Path, job: dict[str, Any]) -> None:
    sums = dict(reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text().splitlines())
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    record = json.loads((folder / "job.json").read_text())
    assert (record["job_id"], record["spec"]["beta"]) == (job["id"], job["spec"]["beta"])
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        answer = model.generate(**tokenizer("Name 7?", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > len(tokenizer("Name 7?").input_ids)
