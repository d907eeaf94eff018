"""The real trainer, killed again and again: the policy must be that of an undisturbed run, byte by byte."""

import hashlib
import json
import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from typing import Any

from backends import PROJECT, add_dataset, submit
from faults.outcome import Outcome, Row
from faults.world import COMBINATIONS, Grounds, Options, World
from tiny_models import make_tiny_model
from toy_jobs import attempts_of, children_of, events, points, view

from core.database.repositories.jobs import find_job
from core.domain.metric_names import TIMING
from core.services import artifacts
from core.storage import keys

NUM_KILLS = 4
SETTINGS = {"lease_seconds": 4.0, "heartbeat_seconds": 0.5, "sweep_seconds": 0.5, "poll_seconds": 0.5}
FIELDS: dict[str, Any] = {
    "sft": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3},
    "dpo": {"epochs": 12, "batch_size": 4, "learning_rate": 1e-3},
    "max_length": 64,
    "validation_fraction": 0.25,
    "precision": "fp32",
    "evaluate_every_steps": 5,
    "checkpoint_every_steps": 3,
    "reuse": False,
}


@dataclass(frozen=True)
class Golden:
    weights_sha256: str
    curve: list[Any]
    seconds: float


def prepare(grounds: Grounds, seed: int) -> tuple[World, str]:
    world = World(grounds, Options(*COMBINATIONS[seed % 4], settings=SETTINGS))
    folder = world.backend.settings.models_dir / "tiny"
    shutil.rmtree(folder)
    with grounds.counting:
        template = grounds.folder / "tiny-model"
        if not template.exists():
            make_tiny_model(template)
    shutil.copytree(template, folder)
    rows = [{"line": n, "prompt": f"Question {n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}!"} for n in range(24)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    world.backend.store.put_bytes(keys.dataset_rows(PROJECT, "ds_1"), content)
    add_dataset(world.backend, "ds_1", num_rows=len(rows))
    job_id = submit(world.backend, **FIELDS).id
    world.ledger.must_succeed.add(job_id)
    return world, job_id


def wait_until_over(world: World, job_id: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while world.status(job_id) in ("queued", "running") and time.monotonic() < deadline:
        time.sleep(0.1)


def result_of(world: World, job_id: str, seconds: float) -> Golden:
    files = artifacts.get(world.backend, PROJECT, job_id).files
    weights = next(file for file in files if file.path == "model.safetensors")
    content = world.backend.store.get_bytes(weights.key)
    curve = [
        [
            p.stage.value,
            p.split,
            p.step,
            {name: value for name, value in sorted(p.values.items()) if name not in TIMING},
        ]
        for p in points(world.backend, job_id)
    ]
    return Golden(hashlib.sha256(content).hexdigest(), sorted(curve, key=lambda p: p[:3]), seconds)


def golden(grounds: Grounds) -> Golden:
    with grounds.training:
        if "golden" not in grounds.results:
            world, job_id = prepare(grounds, 0)
            world.start("real worker")
            start = time.monotonic()
            wait_until_over(world, job_id, 180)
            assert world.status(job_id) == "succeeded", view(world.backend, job_id)
            grounds.results["golden"] = result_of(world, job_id, time.monotonic() - start)
            violations = world.finish()
            assert not violations, violations
        return grounds.results["golden"]  # type: ignore[no-any-return]


def real_kills(grounds: Grounds, seed: int) -> Outcome:
    """Four kills of trainer or worker; in every second run the first is in the middle of writing a checkpoint."""
    expected = golden(grounds)
    chance = random.Random(seed)
    world, job_id = prepare(grounds, seed)
    mark = world.folder / "has-struck"
    strike = f"{chance.choice(('directory.written', 'directory.renamed'))}=kill:{mark}@{chance.randint(2, 8)}"
    worker = world.start("real worker", strike=strike if seed % 2 else "")
    num_kills, deadline = 0, time.monotonic() + 200
    while num_kills + mark.exists() < NUM_KILLS and time.monotonic() < deadline:
        time.sleep(chance.uniform(0.2, expected.seconds * 0.7))
        job = world.backend.database.read(lambda session: find_job(session, PROJECT, job_id))
        assert job is not None
        if job.status.value in ("succeeded", "failed"):
            break
        if job.crash_count > 0 or job.status.value != "running":
            continue  # spare it until it has come to a new checkpoint
        trainers = children_of(worker.pid)
        if trainers and chance.random() < 0.5:
            os.kill(trainers[0], signal.SIGKILL)
        else:
            worker.kill()
            worker = world.start("real worker")
        num_kills += 1
    wait_until_over(world, job_id, 180)
    num_kills += mark.exists()
    violations = []
    if world.status(job_id) == "succeeded":
        found = result_of(world, job_id, 0)
        violations += [] if found.weights_sha256 == expected.weights_sha256 else ["I2: other weights"]
        violations += [] if found.curve == expected.curve else ["I3: another curve"]
    violations += [e.message for e in events(world.backend, job_id) if e.kind == "resume_divergence"]
    num_attempts = len(attempts_of(world.backend, job_id))
    setting = " ".join(COMBINATIONS[seed % 4])
    return Outcome(seed, setting, num_kills, violations + world.finish(), {"num_attempts": [num_attempts]})


REAL = Row("real-trainer", "kill -9", 20, real_kills, num_parallel=2)
