"""Sweeps whose members have published policies with known rewards, as comparisons see them; the worker is played."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from api_server import RunningApi
from backends import BASE_MODEL, PROJECT, claim, point

from core.database.columns import database_now
from core.database.tables.judgements import Judgement
from core.database.tables.objects import Checkpoint, CheckpointStatus
from core.domain.jobs.job_state import Stage
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.domain.request_status import RequestStatus
from core.services.attempts import lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.lifecycle import Publication
from core.services.backend import Backend
from core.services.ids import new_id
from core.storage import keys

LINES = range(1, 41)


Margins = Mapping[int, float | Sequence[float]]
"""By line; several are those of its pairs."""


def publish(backend: Backend, held: ClaimedJob, margins: Margins, kl: float, torch: str = "2.13.0") -> None:
    """End a job as one whose policy has these margins on held-out pairs."""
    rows = [
        (line, one) for line, given in margins.items() for one in (given if isinstance(given, Sequence) else [given])
    ]
    accuracy = sum(margin > 0 for _, margin in rows) / len(rows)
    values = {"kl/sampled": kl, "rewards/accuracies": accuracy, "rewards/margins": 0.1}
    half = {"kl/sampled": kl / 2, "rewards/accuracies": accuracy / 2, "rewards/margins": 0.05}
    recording.record_points(held, [point(5, split="validation", **half), point(10, split="validation", **values)])
    pairs = [{"line": line, "split": "validation", "margin_last": margin, "flags": []} for line, margin in rows]
    record = {"versions": {"torch": torch, "preftune": "0.2.0"}, "device": "cpu"}
    contents = {
        "pairs.jsonl": "".join(json.dumps(pair) + "\n" for pair in pairs).encode(),
        "job.json": json.dumps(record).encode(),
        "model.safetensors": b"weights",
    }
    prefix = keys.artifact_prefix(held.project_id, held.job_id, held.attempt_name)
    files = []
    for name, content in contents.items():
        backend.store.put_bytes(prefix + name, content)
        digest = hashlib.sha256(content).hexdigest()
        files.append(StoredFile(path=name, key=prefix + name, num_bytes=len(content), sha256=digest))
    other = {"value": 0.1, "low": 0.0, "high": 0.2}
    held_out = {
        "num_rows": len(rows),
        "reward_accuracy": {"value": accuracy, "low": 0.0, "high": 1.0},
        "reward_margin": other,
        "loss": other,
    }
    results = {"step": 10, "held_out": held_out, "training": None}
    tree = StoredTree(prefix=prefix, manifest_sha256="3" * 64)
    lifecycle.finish_succeeded(held, Publication(tree=tree, files=files, results=results))


def margins_with(num_right: int, first: int = 0) -> dict[int, float]:
    """The first `num_right` lines behind `first` are right."""
    return {line: 0.5 if first < line <= first + num_right else -0.25 for line in LINES}


def make_sweep(
    api: RunningApi, name: str, betas: Sequence[float] = (0.05, 0.1, 0.5), dataset_id: str | None = None
) -> str:
    """Three betas: the least is the most accurate and furthest, the second nearly as accurate, the others are worse."""
    read = dataset_id or api.dataset_id()
    job = {"base_model": BASE_MODEL, "dataset_id": read, "reuse": False, "name": name, "priority": 100}
    request = {"job": job, "grid": {"beta": [*betas]}, "max_parallel": 64}
    made = api.http.post("/sweeps", json=request).json()
    ends = {betas[0]: (margins_with(30), 8.0), betas[1]: (margins_with(29), 3.0)}
    for _ in betas:
        held = claim(api.backend)
        lifecycle.begin(held)
        margins, kl = ends.get(held.spec["beta"], (margins_with(10), 1.0))
        publish(api.backend, held, margins, kl, torch="2.13.0" if held.spec["beta"] in ends else "2.12.0")
    return str(made["id"])


def add_judgement(
    backend: Backend, models: tuple[str, str], win_rate: float, judge: Mapping[str, Any] | None = None
) -> str:
    """A judgement that has succeeded, of 40 prompts, of which the first model wins that share."""
    shown = {"value": win_rate, "low": win_rate - 0.125, "high": win_rate + 0.125}
    row = Judgement(
        id=new_id("judge"), project_id=PROJECT, status=RequestStatus.SUCCEEDED, name=None, user_metadata={},
        requested={"judge": judge or {"kind": "length", "prefers": None}, "num_pairs": None, "seed": 0},
        first_model=models[0], second_model=models[1], source_name="ds_answers", num_pairs=41, num_judged=41,
        num_failed=1, num_requests=0, num_bytes=0, tally={}, results={"win_rate": shown, "num_prompts": 40},
        dataset_id=new_id("ds"), has_dataset=False, is_cancelled=False, created_at=database_now(),
        finished_at=database_now(),
    )  # fmt: skip
    name = row.id
    backend.database.write(lambda session: session.add(row))
    return name


def add_checkpoint(backend: Backend, job_id: str, step: int, stage: Stage = Stage.DPO) -> str:
    """A record of a checkpoint, whose objects are gone."""
    row = Checkpoint(
        id=new_id("ckpt"), job_id=job_id, project_id=PROJECT, attempt=1, stage=stage, step=step,
        status=CheckpointStatus.DELETED, prefix="", manifest_sha256="0" * 64, num_bytes=0, created_at=database_now(),
    )  # fmt: skip
    name = row.id
    backend.database.write(lambda session: session.add(row))
    return name
