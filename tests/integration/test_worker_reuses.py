"""What one job takes over from another, by the real trainer: stages, built once, and policies to start from."""

from pathlib import Path

import pytest
from backends import PROJECT, submit
from toy_jobs import InProcessWorker, events, points, submit_toy, view, wait_for, wait_for_status, wait_for_step
from toy_trainer import Script
from trained_jobs import FIELDS, add_rows, fetch_artifact, make_rows, run_to_end

from core.services.backend import Backend
from core.services.jobs import checkpoint_policies, steering
from worker.app import TRAINER_COMMAND


def stages(backend: Backend, job_id: str) -> dict[str, tuple[str, str | None]]:
    return {stage.name.value: (str(stage.status), stage.reused_from) for stage in view(backend, job_id).stages}


def weights(backend: Backend, job_id: str, target: Path) -> bytes:
    folder = target / job_id
    if not folder.exists():
        fetch_artifact(backend, job_id, folder)
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.timeout(480)
def test_another_beta_and_another_round_start_from_what_is_there(backend: Backend, tmp_path: Path) -> None:
    """DPO begins at once and ends with the bytes of a job that computed all anew; the next round begins at 0."""
    add_rows(backend, make_rows())
    with InProcessWorker(backend, TRAINER_COMMAND):
        first = submit(backend, **FIELDS).id
        run_to_end(backend, first)
        second = submit(backend, **FIELDS, beta=0.4, variant="hinge").id
        run_to_end(backend, second)
        alone = submit(backend, **FIELDS, beta=0.4, variant="hinge", reuse=False).id
        run_to_end(backend, alone)
        newest = checkpoint_policies.list_checkpoints(backend, PROJECT, first)[0]
        rounds = [
            submit(backend, **FIELDS | {"base_model": base_model, "sft": "skip", "beta": 0.2}).id
            for base_model in (first, f"{first}@{newest.id}")
        ]
        for job_id in rounds:
            run_to_end(backend, job_id)
    assert stages(backend, second)["sft"] == ("reused", first)
    assert stages(backend, second)["reference"] == ("reused", first)
    assert not [point for point in points(backend, second) if point.stage.value == "sft"]
    # The newest checkpoint is the policy at the end, so the second round finds the first one's reference by its digest.
    assert stages(backend, rounds[1])["reference"] == ("reused", rounds[0])
    for job_id in (first, alone, rounds[0]):
        assert {reused_from for _, reused_from in stages(backend, job_id).values()} == {None}
    assert weights(backend, second, tmp_path) == weights(backend, alone, tmp_path) != weights(backend, first, tmp_path)
    for job_id in rounds:
        assert_begins_where_it_ended(backend, first, job_id)
    policies_after = {weights(backend, job_id, tmp_path) for job_id in (first, *rounds)}
    assert len(policies_after) == 2, "both rounds are one"


def assert_begins_where_it_ended(backend: Backend, earlier: str, later: str) -> None:
    """Rewards are 0 against the earlier policy, and log-probabilities are those that it ended with."""
    old, new = (
        [p for p in points(backend, job_id) if p.stage.value == "dpo" and p.split == "validation"]
        for job_id in (earlier, later)
    )
    assert new[0].values["rewards/margins"] == new[0].values["rewards/chosen"] == 0.0
    assert old[-1].values["rewards/chosen"] != 0.0
    for name in ("logps/chosen", "logps/rejected"):
        assert new[0].values[name] == pytest.approx(old[-1].values[name], rel=1e-5)


@pytest.mark.timeout(480)
def test_two_jobs_at_once_build_a_stage_once(backend: Backend, tmp_path: Path) -> None:
    add_rows(backend, make_rows())
    fields = FIELDS | {"sft": FIELDS["sft"] | {"epochs": 20}}
    first, second = (submit(backend, **fields, beta=beta).id for beta in (0.1, 0.4))
    with InProcessWorker(backend, TRAINER_COMMAND), InProcessWorker(backend, TRAINER_COMMAND):
        for job_id in (first, second):
            run_to_end(backend, job_id)
    sources = {job_id: stages(backend, job_id) for job_id in (first, second)}
    (builder,) = [job_id for job_id in sources if sources[job_id]["sft"][1] is None]
    (waiter,) = {first, second} - {builder}
    for name in ("sft", "reference"):
        assert sources[builder][name] == ("finished", None)
        assert sources[waiter][name] == ("reused", builder)
    awaited = [event.data["stage"] for event in events(backend, waiter) if event.kind == "stage_awaited"]
    assert awaited[0] == "sft"
    assert not [point for point in points(backend, waiter) if point.stage.value == "sft"]
    assert weights(backend, first, tmp_path) != weights(backend, second, tmp_path)


def test_a_waiting_job_can_be_cancelled_and_takes_over_from_a_builder_that_ends(backend: Backend) -> None:
    """With the toy trainer, which asks in the same words."""
    script = Script(steps=100_000, step_seconds=0.1, checkpoint_every=100_000)
    builder = submit_toy(backend, script)
    with InProcessWorker(backend), InProcessWorker(backend), InProcessWorker(backend):
        wait_for_step(backend, builder, "sft", 1)
        waiters = [submit_toy(backend, script) for _ in range(2)]
        for waiter in waiters:
            wait_for(lambda job=waiter: has_waited(backend, job), "waiting", 60)  # type: ignore[misc]
        steering.cancel(backend, PROJECT, waiters[0])
        wait_for_status(backend, waiters[0], "cancelled")
        assert not points(backend, waiters[1])
        steering.cancel(backend, PROJECT, builder)
        wait_for_step(backend, waiters[1], "sft", 1)
        steering.cancel(backend, PROJECT, waiters[1])
        for job_id in (builder, waiters[1]):
            wait_for_status(backend, job_id, "cancelled")


def has_waited(backend: Backend, job_id: str) -> bool:
    return "stage_awaited" in [event.kind for event in events(backend, job_id)]
