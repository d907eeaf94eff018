"""Checkpoints, stage outputs and the policies in them, on both databases."""

from typing import Any

import pytest
from backends import (
    PROJECT,
    add_dataset,
    checkpoint,
    checkpoint_with_policy,
    claim,
    curve,
    lose,
    point,
    publication,
    submit,
)

from core.domain.jobs.job_state import Stage
from core.domain.jobs.stored_files import StoredTree
from core.services.attempts import checkpoints, lifecycle, recording
from core.services.backend import Backend
from core.services.base_models import starting_points
from core.services.jobs import checkpoint_policies, events, jobs
from core.services.operations import garbage_collection
from core.storage import keys


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> str:
    return add_dataset(backend)


def test_a_corrupt_checkpoint_is_set_aside_for_the_one_before(backend: Backend) -> None:
    job_id = submit(backend).id
    first = claim(backend)
    lifecycle.begin(first)
    recording.record_points(first, [point(step) for step in (1, 2, 3)])
    checkpoint(backend, first, 1)
    newest = checkpoint(backend, first, 2)
    lose(backend, first)

    second = claim(backend)
    resumed = lifecycle.begin(second)
    assert resumed is not None
    assert resumed.checkpoint_id == newest
    checkpoints.mark_checkpoint_corrupt(second, newest, "One byte differs.")
    checkpoints.mark_checkpoint_corrupt(second, newest, "One byte differs.")
    resumed = lifecycle.begin(second)
    assert resumed is not None
    assert resumed.step == 1
    assert [step for _, _, step, _ in curve(backend, job_id)] == [1]
    assert [item.step for item in checkpoint_policies.list_checkpoints(backend, PROJECT, job_id)] == [1]
    told = [event for event in events.list_events(backend, PROJECT, job_id) if event.kind == "checkpoint_corrupt"]
    assert len(told) == 1


def test_the_newest_checkpoints_and_the_best_are_kept(backend: Backend) -> None:
    job_id = submit(backend, keep_checkpoints=2).id
    held = claim(backend)
    lifecycle.begin(held)
    for step, loss in ((1, 0.6), (2, 0.3), (3, 0.4), (4, 0.5)):
        recording.record_points(held, [point(step, loss, split="validation")])
        checkpoint_with_policy(backend, held, step, {"model.safetensors": b"%d" % step})
    kept = checkpoint_policies.list_checkpoints(backend, PROJECT, job_id)
    assert [(item.step, item.is_best, item.metrics["loss"]) for item in kept] == [
        (4, False, 0.5),
        (3, False, 0.4),
        (2, True, 0.3),
    ]
    assert [item.is_resumable for item in kept] == [True, True, False]
    garbage_collection.collect(backend)
    for item in kept:
        files = checkpoint_policies.find_archive(backend, PROJECT, job_id, item.id).files
        assert [backend.store.get_bytes(file.key) for file in files if file.path == "model.safetensors"] == [
            b"%d" % item.step
        ]
    prefix = keys.attempt_prefix(PROJECT, job_id, held.attempt_name)
    steps = {(key.split("/")[5], key.split("/")[6]) for key in (info.key for info in backend.store.list(prefix))}
    assert steps == {("checkpoints", f"dpo-{step:08d}") for step in (3, 4)} | {
        ("policies", f"dpo-{step:08d}") for step in (2, 3, 4)
    }


@pytest.mark.parametrize(
    ("fields", "best"),
    [
        ({}, 2),
        ({"keep_best": "rewards/accuracies"}, 3),
        ({"early_stopping": {"metric": "rewards/margins"}}, 1),
        ({"early_stopping": {"metric": "rewards/margins"}, "keep_best": "loss"}, 2),
    ],
)
def test_what_the_best_is_best_at_can_be_chosen(backend: Backend, fields: dict[str, Any], best: int) -> None:
    job_id = submit(backend, **fields).id
    held = claim(backend)
    lifecycle.begin(held)
    for step, loss, accuracy, margin in ((1, 0.6, 0.5, 0.9), (2, 0.3, 0.6, 0.1), (3, 0.4, 0.7, 0.2)):
        values = {"rewards/accuracies": accuracy, "rewards/margins": margin}
        recording.record_points(held, [point(step, loss, split="validation", **values)])
        checkpoint_with_policy(backend, held, step, {"model.safetensors": b"w"})
    assert [item.step for item in checkpoint_policies.list_checkpoints(backend, PROJECT, job_id) if item.is_best] == [
        best
    ]


def test_a_job_starts_from_the_policy_of_a_checkpoint_and_deleting_takes_all(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    lifecycle.begin(held)
    checkpoint_id = checkpoint_with_policy(backend, held, 1, {"model.safetensors": b"w"})
    lifecycle.finish_succeeded(held, publication(backend, held))
    tree = backend.database.write(
        lambda session: starting_points.find_policy(session, PROJECT, f"{job_id}@{checkpoint_id}").tree
    )
    assert tree is not None
    assert tree.prefix == keys.policy_prefix(PROJECT, job_id, held.attempt_name, "dpo", 1)
    jobs.delete(backend, PROJECT, job_id)
    garbage_collection.collect(backend)
    assert list(backend.store.list(keys.attempt_prefix(PROJECT, job_id, held.attempt_name))) == []


def test_stage_outputs_are_taken_over_inside_a_project(backend: Backend) -> None:
    first_id = submit(backend).id
    first = claim(backend)
    tree = StoredTree(prefix="projects/default/jobs/a/a1/stages/d/", manifest_sha256="1" * 64)
    new = checkpoints.NewStageOutput(stage=Stage.SFT, digest="d" * 64, tree=tree, num_bytes=1)
    checkpoints.commit_stage_output(first, new)
    checkpoints.commit_stage_output(first, new)

    submit(backend)
    second = claim(backend)
    found = checkpoints.find_stage_output(second, "d" * 64)
    assert found == checkpoints.ReusableOutput(job_id=first_id, tree=tree)
    assert checkpoints.find_stage_output(second, "e" * 64) is None
    submit(backend, reuse=False)
    assert checkpoints.find_stage_output(claim(backend), "d" * 64) is None
    checkpoints.drop_stage_output(second, "d" * 64)
    assert checkpoints.find_stage_output(second, "d" * 64) is None
