"""Jobs of the real trainer on a base model of some ten thousand parameters: data, settings, results."""

import json
from typing import Any

from backends import PROJECT, add_dataset
from toy_jobs import wait_for_status

from core.domain.jobs.stored_files import StoredTree
from core.services.backend import Backend
from core.services.jobs import artifacts
from core.storage import keys
from core.storage.trees import fetch_tree

FIELDS: dict[str, Any] = {
    "sft": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3},
    "dpo": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3},
    "max_length": 64,
    "validation_fraction": 0.25,
    "precision": "fp32",
    "evaluate_every_steps": 3,
    "checkpoint_every_steps": 4,
    "sample_prompts": ["What is a preference?"],
}
NUM_ROWS = 24


def make_rows(count: int = NUM_ROWS) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"line": n, "prompt": f"Question {n}?", "chosen": f"Good answer {n}.", "rejected": f"Bad {n}!"}
        for n in range(1, count + 1)
    ]
    return rows


def add_rows(backend: Backend, rows: list[dict[str, Any]], dataset_id: str = "ds_1", **kind: Any) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    backend.store.put_bytes(keys.dataset_rows(PROJECT, dataset_id), content)
    add_dataset(backend, dataset_id, num_rows=len(rows), **kind)


def run_to_end(backend: Backend, job_id: str) -> Any:
    return wait_for_status(backend, job_id, "succeeded", "failed", "cancelled", seconds=200)


def fetch_artifact(backend: Backend, job_id: str, target: Any) -> Any:
    artifact = artifacts.get(backend, PROJECT, job_id)
    fetch_tree(backend.store, StoredTree(prefix=artifact.prefix, manifest_sha256=artifact.manifest_sha256), target)
    return target
