"""What the package rewardbench reads in a published reward model, on a local file of pairs."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, serve
from scored_jobs import light_lane
from tiny_models import make_tiny_model
from toy_jobs import InProcessWorker, wait_for_status
from trained_jobs import fetch_artifact

from worker.app import TRAINER_COMMAND

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-rewardbench" / "bin" / "python"
ON_CPU = Path(__file__).with_name("rewardbench_on_cpu.py")
BASE_MODEL = "tiny-llama"
NUM_PAIRS = 24
SETTINGS: dict[str, Any] = {"max_length": 256, "precision": "fp32", "validation_fraction": 0.25}
STAGE = {"epochs": 4, "batch_size": 4, "learning_rate": 3e-3}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="rewardbench is in an environment of its own: make test-rewardbench"
    ),
]


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def pair(number: int) -> dict[str, Any]:
    """All turns on both sides, as rewardbench reads a local file; the service takes the same."""
    question = f"How do I keep {number} apples?"
    good, bad = f"In a cool place, {number} of them.", f"I do not know, {'really ' * (number % 4)}ask somebody else."
    return {"chosen": turns(question, good), "rejected": turns(question, bad)}


PAIRS = [pair(number) for number in range(NUM_PAIRS)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A reward model of the real trainer as a folder, and what the service itself says of the pairs."""
    folder = tmp_path_factory.mktemp("rewardbench")
    model = make_tiny_model(folder / "service" / "models" / BASE_MODEL)
    config = model / "tokenizer_config.json"  # of a class, as hubs have it: the plain one gives `token_type_ids`
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "GPT2Tokenizer"}))
    content = "".join(json.dumps(row) + "\n" for row in PAIRS)
    (folder / "pairs.jsonl").write_text(content, encoding="utf-8")
    with serve(folder / "service") as api:
        dataset_id = api.http.post("/datasets", content=content.encode(), params={"name": "pairs"}).json()["id"]
        common = SETTINGS | {"base_model": BASE_MODEL, "dataset_id": dataset_id}
        jobs = {
            "reward": api.http.post("/jobs", json=common | {"method": "reward", "reward": STAGE}).json()["id"],
        }
        with InProcessWorker(api.backend, TRAINER_COMMAND):
            ended = {
                name: wait_for_status(api.backend, job, "succeeded", "failed", seconds=300)
                for name, job in jobs.items()
            }
        assert all(job.status.value == "succeeded" for job in ended.values()), [job.error for job in ended.values()]
        for name, job_id in jobs.items():
            fetch_artifact(api.backend, job_id, folder / name)
        with light_lane(api.backend):
            scores = {name: score(api, job_id) for name, job_id in jobs.items()}
    return {"folder": folder, "scores": scores}


def score(api: RunningApi, job_id: str) -> list[dict[str, Any]]:
    asked = [
        {"prompt": row["chosen"][:1], "chosen": row["chosen"][1:], "rejected": row["rejected"][1:]} for row in PAIRS
    ]
    made = api.http.post(f"/jobs/{job_id}/scores", json={"pairs": asked}).json()
    found = api.http.get(f"/jobs/{job_id}/scores/{made['id']}", params={"wait": 60}, timeout=90).json()
    for _ in range(5):
        if found["status"] not in ("queued", "running"):
            break
        found = api.http.get(f"/jobs/{job_id}/scores/{made['id']}", params={"wait": 60}, timeout=90).json()
    assert found["status"] == "succeeded", found
    results: list[dict[str, Any]] = found["results"]
    return results


def rewardbench(folder: Path, model: str, *arguments: str) -> tuple[list[dict[str, Any]], float]:
    """Run the package over the pairs; return its rows, and the accuracy that it reports."""
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "WANDB_MODE": "disabled",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [
        str(PYTHON),
        str(ON_CPU),
        f"--model={model}",
        "--dataset=pairs.jsonl",
        "--load_json",
        "--torch_dtype=float32",
        *arguments,
    ]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **offline}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in (folder / f"results/{model}_outputs.jsonl").read_text().splitlines()]
    summary = json.loads((folder / f"results/{model}.json").read_text())
    return rows, float(summary["accuracy"])


def test_a_reward_model_gives_the_numbers_of_the_service(trained: dict[str, Any]) -> None:
    rows, accuracy = rewardbench(trained["folder"], "reward", "--not_quantized")
    own = trained["scores"]["reward"]
    for row, found in zip(rows, own, strict=True):
        assert row["scores_chosen"] == pytest.approx(found["chosen_reward"], abs=1e-4)
        assert row["scores_rejected"] == pytest.approx(found["rejected_reward"], abs=1e-4)
    assert accuracy == sum(found["margin"] > 0 for found in own) / NUM_PAIRS
