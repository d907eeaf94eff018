"""Ten kills during a sweep of the real trainer: as if there had been none, and as the same jobs one by one."""

import signal
from pathlib import Path
from typing import Any

import pytest
from backends import PROJECT, make_backend, submit
from sqlalchemy import select
from tiny_models import make_tiny_model
from toy_jobs import ServiceProcess, checkpoints_of, wait_for
from trained_jobs import FIELDS, add_rows, make_rows

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.repositories import sweeps as sweep_rows
from core.database.session import Database
from core.database.tables.jobs import JobStage
from core.domain.jobs.job_state import JobStatus
from core.domain.sweeps import SweepRequest, SweepStatus
from core.services.backend import Backend
from core.services.jobs import artifacts, jobs
from core.services.sweeps import sweeps
from core.services.sweeps.choice import best_of

BETAS = [0.05, 0.1, 0.3, 0.6]
NUM_KILLS = 10
PATIENCE_SECONDS = 1800
SETTINGS = FIELDS | {"checkpoint_every_steps": 1, "evaluate_every_steps": 50, "dpo": FIELDS["dpo"] | {"epochs": 40}}
TIMES = {"lease_seconds": 3.0, "heartbeat_seconds": 0.5, "sweep_seconds": 0.5, "poll_seconds": 1.0}


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kills_change_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/preftune.db"
    upgrade(url)
    backend = make_backend(tmp_path, Database(open_engine(url)), **TIMES)
    make_tiny_model(backend.settings.models_dir / "tiny")
    add_rows(backend, make_rows())
    job = {"base_model": "tiny", "dataset_id": "ds_1", **SETTINGS}
    request = SweepRequest.model_validate({"job": job, "grid": {"beta": BETAS}, "max_parallel": 2})
    sweep_id = sweeps.create(backend, PROJECT, request).id
    run_with_kills(backend, sweep_id, tmp_path / "worker.log")
    swept = sweeps.get(backend, PROJECT, sweep_id)
    assert (swept.status, swept.counts) == (SweepStatus.FINISHED, {"succeeded": len(BETAS)})
    job_ids = [member.job_id for member in swept.members]
    check_shared_stages(backend, job_ids)
    alone = [submit(backend, **SETTINGS, beta=beta, reuse=False).id for beta in BETAS]
    with ServiceProcess("tiny_worker.py", backend, tmp_path / "worker.log"):
        for job_id in alone:
            wait_for(lambda job_id=job_id: jobs.get(backend, PROJECT, job_id).finished_at, job_id, PATIENCE_SECONDS)
    for shared, separate in zip(job_ids, alone, strict=True):
        assert jobs.get(backend, PROJECT, separate).status is JobStatus.SUCCEEDED
        assert weights(backend, shared) == weights(backend, separate)
    assert job_ids.index(str(swept.best_job_id)) == best_place(backend, alone)


def run_with_kills(backend: Backend, sweep_id: str, log: Path) -> None:
    """Kill the worker, which has the sweep's progress and the trainer's supervisor in it, after new checkpoints."""
    for _ in range(NUM_KILLS):
        before = newest_checkpoint(backend, sweep_id)
        with ServiceProcess("tiny_worker.py", backend, log) as worker:
            wait_for(
                lambda before=before: is_over(backend, sweep_id) or newest_checkpoint(backend, sweep_id) > before,
                "a new checkpoint",
                PATIENCE_SECONDS,
            )
            assert not is_over(backend, sweep_id), "the sweep was over before all kills"
            worker.send(signal.SIGKILL)
            worker.wait()
    with ServiceProcess("tiny_worker.py", backend, log):
        wait_for(lambda: is_over(backend, sweep_id), "the sweep", PATIENCE_SECONDS)


def is_over(backend: Backend, sweep_id: str) -> bool:
    return sweeps.get(backend, PROJECT, sweep_id).finished_at is not None


def newest_checkpoint(backend: Backend, sweep_id: str) -> str:
    """Return the id of the newest checkpoint of all members: ids sort by time, and older checkpoints are pruned."""
    members = sweeps.get(backend, PROJECT, sweep_id).members
    found = [checkpoint.id for member in members for checkpoint in checkpoints_of(backend, member.job_id)]
    return max(found, default="")


def check_shared_stages(backend: Backend, job_ids: list[str]) -> None:
    """One member has computed SFT and the reference, the others have taken them over."""
    for stage in ("sft", "reference"):
        statement = select(JobStage.status).where(JobStage.job_id.in_(job_ids), JobStage.stage == stage)
        found: list[Any] = sorted(backend.database.read(lambda session, s=statement: list(session.scalars(s))))
        assert found == ["finished"] + ["reused"] * (len(job_ids) - 1), stage


def weights(backend: Backend, job_id: str) -> str:
    files = artifacts.get(backend, PROJECT, job_id).files
    return next(file.sha256 for file in files if file.path == "model.safetensors")


def best_place(backend: Backend, job_ids: list[str]) -> int:
    """Return which of the jobs is the best one, by the rule of sweeps."""
    found = backend.database.read(lambda session: sweep_rows.find_jobs(session, job_ids))
    return job_ids.index(str(best_of([(job_id, found[job_id]) for job_id in job_ids], "rewards/accuracies")))
