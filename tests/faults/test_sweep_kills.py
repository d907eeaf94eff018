"""Ten kills during each kind of sweep of the real trainer: as if there had been none, and as the jobs one by one."""

import signal
from pathlib import Path
from typing import Any

import pytest
from backends import PROJECT, make_backend, submit
from sqlalchemy import func, select
from tiny_models import make_tiny_model
from toy_jobs import ServiceProcess, points, wait_for
from trained_jobs import FIELDS, add_rows, make_rows

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.repositories import sweeps as sweep_rows
from core.database.session import Database
from core.database.tables.jobs import JobStage
from core.database.tables.objects import Checkpoint
from core.domain.jobs.job_state import JobStatus
from core.domain.sweeps import SweepRequest, SweepStatus
from core.services.backend import Backend
from core.services.jobs import artifacts, jobs
from core.services.sweeps import sweeps
from core.services.sweeps.choice import best_of
from core.services.sweeps.view import SweepView

METRIC = "rewards/margins"
BETAS = [0.05, 0.1, 0.3, 0.6]
NUM_KILLS = 10
PATIENCE_SECONDS = 1800
SETTINGS = FIELDS | {"checkpoint_every_steps": 1, "dpo": FIELDS["dpo"] | {"epochs": 4}}
TIMES = {"lease_seconds": 3.0, "heartbeat_seconds": 0.5, "sweep_seconds": 0.5, "poll_seconds": 1.0}
SLOW = "trainer.message_sent=sleep:0.1@1+"
"""So that every step's checkpoint is stored, and a kill comes where it is meant to."""


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kills_change_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/preftune.db"
    upgrade(url)
    backend = make_backend(tmp_path, Database(open_engine(url)), **TIMES)
    make_tiny_model(backend.settings.models_dir / "tiny")
    add_rows(backend, make_rows())
    log = tmp_path / "worker.log"
    whole = run_with_kills(backend, log, checkpoints_between=6)
    assert whole.counts == {"succeeded": len(BETAS)}
    check_stages(backend, whole, ["finished"] + ["reused"] * (len(BETAS) - 1))
    halved = run_with_kills(backend, log, checkpoints_between=2, strategy="successive_halving", halving={"eta": 2})
    assert halved.counts == {"succeeded": 1, "cancelled": len(BETAS) - 1}
    check_stages(backend, halved, ["reused"] * len(BETAS))
    alone = run_alone(backend, log)
    for member, separate in zip(whole.members, alone, strict=True):
        assert weights(backend, member.job_id) == weights(backend, separate)
    best = best_place(backend, alone)
    assert [member.job_id for member in whole.members].index(str(whole.best_job_id)) == best
    check_rungs(backend, halved, alone)
    (winner,) = [place for place, member in enumerate(halved.members) if not member.is_dropped]
    assert halved.members[winner].job_id == halved.best_job_id
    assert weights(backend, str(halved.best_job_id)) == weights(backend, alone[winner])


def run_alone(backend: Backend, log: Path) -> list[str]:
    """Run the same jobs one by one, without anything shared; return their ids."""
    job_ids = [submit(backend, **SETTINGS, beta=beta, reuse=False).id for beta in BETAS]
    with ServiceProcess("tiny_worker.py", backend, log):
        for job_id in job_ids:
            wait_for(lambda job_id=job_id: jobs.get(backend, PROJECT, job_id).finished_at, job_id, PATIENCE_SECONDS)
            assert jobs.get(backend, PROJECT, job_id).status is JobStatus.SUCCEEDED
    return job_ids


def run_with_kills(backend: Backend, log: Path, *, checkpoints_between: int, **fields: Any) -> SweepView:
    """Kill the worker, which has the sweep's progress and the trainer's supervisor in it, after new checkpoints."""
    job = {"base_model": "tiny", "dataset_id": "ds_1", **SETTINGS}
    values = {"job": job, "grid": {"beta": BETAS}, "max_parallel": 2, "metric": METRIC} | fields
    sweep_id = sweeps.create(backend, PROJECT, SweepRequest.model_validate(values)).id
    for number in range(1, NUM_KILLS + 1):
        wanted = num_checkpoints(backend, sweep_id) + checkpoints_between
        with ServiceProcess("tiny_worker.py", backend, log, failpoints=SLOW) as worker:
            wait_for(
                lambda wanted=wanted: is_over(backend, sweep_id) or num_checkpoints(backend, sweep_id) >= wanted,
                "new checkpoints",
                PATIENCE_SECONDS,
            )
            assert not is_over(backend, sweep_id), f"the sweep was over before kill {number}"
            worker.send(signal.SIGKILL)
            worker.wait()
    with ServiceProcess("tiny_worker.py", backend, log):
        wait_for(lambda: is_over(backend, sweep_id), "the sweep", PATIENCE_SECONDS)
    view = sweeps.get(backend, PROJECT, sweep_id)
    assert view.status is SweepStatus.FINISHED
    return view


def is_over(backend: Backend, sweep_id: str) -> bool:
    return sweeps.get(backend, PROJECT, sweep_id).finished_at is not None


def num_checkpoints(backend: Backend, sweep_id: str) -> int:
    """Count all checkpoints that the members have stored, those that were pruned since included."""
    job_ids = [member.job_id for member in sweeps.get(backend, PROJECT, sweep_id).members]
    statement = select(func.count()).select_from(Checkpoint).where(Checkpoint.job_id.in_(job_ids))
    return backend.database.read(lambda session: session.scalar(statement) or 0)


def check_stages(backend: Backend, sweep: SweepView, expected: list[str]) -> None:
    """At most one member has computed SFT and the reference, the others have taken them over."""
    job_ids = [member.job_id for member in sweep.members]
    for stage in ("sft", "reference"):
        statement = select(JobStage.status).where(JobStage.job_id.in_(job_ids), JobStage.stage == stage)
        found: list[Any] = sorted(backend.database.read(lambda session, s=statement: list(session.scalars(s))))
        assert found == expected, stage


def check_rungs(backend: Backend, halved: SweepView, alone: list[str]) -> None:
    """The members were compared by the figures that the same jobs have at those steps when nobody disturbs them."""
    assert sorted(len(member.rungs) for member in halved.members) == [1, 1, 2, 2]
    for member, job_id in zip(halved.members, alone, strict=True):
        values = {p.step: p.values[METRIC] for p in points(backend, job_id) if p.split == "validation"}
        for rung in member.rungs:
            assert rung.step is not None
            assert rung.value == values[rung.step]


def weights(backend: Backend, job_id: str) -> str:
    files = artifacts.get(backend, PROJECT, job_id).files
    return next(file.sha256 for file in files if file.path == "model.safetensors")


def best_place(backend: Backend, job_ids: list[str]) -> int:
    """Return which of the jobs is the best one, by the rule of sweeps."""
    found = backend.database.read(lambda session: sweep_rows.find_jobs(session, job_ids))
    return job_ids.index(str(best_of([(job_id, found[job_id]) for job_id in job_ids], METRIC)))
