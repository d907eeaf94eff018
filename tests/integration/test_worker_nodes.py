"""Jobs on two nodes with the real trainer: two workers on this machine, each with an address and a disk of its own.

`make test-nodes` runs what is slow here, and the same between network namespaces (`tests/nodes`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backends import PROJECT, submit
from safetensors.torch import load_file
from toy_jobs import checkpoints_of, events, points, wait_for, wait_for_status
from toy_nodes import node_worker
from trained_jobs import FIELDS, add_rows, fetch_artifact, make_rows, run_to_end

from core.domain.training.metric_names import NUM_TOKENS, TIMING
from core.services.backend import Backend
from core.services.jobs import jobs, steering
from core.storage.trees import read_manifest
from worker.app import GROUP_COMMAND, TRAINER_COMMAND

TOLERANCE = 1e-5
COARSE = {"rewards/length_correlation": 1e-3}
"""A quotient of margins that are all but 0 in the first steps."""
OTHERWISE_CUT = frozenset({NUM_TOKENS})
"""A step is cut into as many micro-batches as ranks, and what rows of two of them have in common is computed twice."""
LONG: dict[str, Any] = FIELDS | {"dpo": FIELDS["dpo"] | {"epochs": 12}, "reuse": False}
SHORT: dict[str, Any] = FIELDS | {"sft": "skip", "dpo": FIELDS["dpo"] | {"epochs": 1}, "sample_prompts": []}


def curve(backend: Backend, job_id: str) -> dict[tuple[str, str, int], dict[str, float | None]]:
    return {(point.stage.value, point.split, point.step): point.values for point in points(backend, job_id)}


def assert_same_curve(backend: Backend, one: str, other: str) -> None:
    expected, found = curve(backend, one), curve(backend, other)
    assert list(expected) == list(found)
    for key, values in expected.items():
        for name in values.keys() - TIMING - OTHERWISE_CUT:
            np.testing.assert_allclose(
                np.float64(found[key][name] or 0.0),
                np.float64(values[name] or 0.0),
                rtol=TOLERANCE,
                atol=max(TOLERANCE, COARSE.get(name, 0.0)),
                err_msg=f"{key} {name}",
            )


def weights(backend: Backend, job_id: str, folder: Path) -> Path:
    return Path(fetch_artifact(backend, job_id, folder / job_id)) / "model.safetensors"


def pause_in_dpo(backend: Backend, job_id: str) -> None:
    wait_for(lambda: any(point.stage.value == "dpo" and point.step >= 6 for point in points(backend, job_id)), "step 6")
    steering.pause(backend, PROJECT, job_id)
    wait_for_status(backend, job_id, "paused")


def node_workers(backend: Backend) -> Any:
    return (node_worker(backend, number, TRAINER_COMMAND, GROUP_COMMAND) for number in (0, 1))


@pytest.mark.slow  # two minutes
@pytest.mark.timeout(600)
def test_two_nodes_train_as_one_process_and_resume_exactly(backend: Backend, tmp_path: Path) -> None:
    """Undisturbed beside one process; paused and gone on with by two (the same bytes), and by one (the same curve)."""
    add_rows(backend, make_rows())
    one, other = node_workers(backend)
    with one, other:
        undisturbed = submit(backend, **LONG, nodes=2).id
        assert run_to_end(backend, undisturbed).status.value == "succeeded", events(backend, undisturbed)
        alone, by_two, by_one = (submit(backend, **LONG, nodes=nodes).id for nodes in (1, 2, 2))
        assert run_to_end(backend, alone).status.value == "succeeded", events(backend, alone)
        pause_in_dpo(backend, by_two)
        names = [file.path for file in read_manifest(backend.store, checkpoints_of(backend, by_two)[-1].tree)]
        assert [name for name in names if name.startswith("policy-")] == [
            "policy-00001-of-00002.safetensors",
            "policy-00002-of-00002.safetensors",
        ]
        pause_in_dpo(backend, by_one)
        jobs.patch(backend, PROJECT, by_one, {"nodes": 1})
        for job_id in (by_two, by_one):
            steering.resume(backend, PROJECT, job_id)
            assert run_to_end(backend, job_id).status.value == "succeeded", events(backend, job_id)
    assert_same_curve(backend, alone, undisturbed)
    assert_same_curve(backend, alone, by_one)
    assert {key: drop(values) for key, values in curve(backend, by_two).items()} == {
        key: drop(values) for key, values in curve(backend, undisturbed).items()
    }
    expected = weights(backend, undisturbed, tmp_path)
    assert weights(backend, by_two, tmp_path).read_bytes() == expected.read_bytes()
    for job_id in (alone, by_one):
        for name, tensor in load_file(weights(backend, job_id, tmp_path)).items():
            torch.testing.assert_close(tensor, load_file(expected)[name], rtol=TOLERANCE, atol=TOLERANCE)
    assert "resumed_elsewhere" in [event.kind for event in events(backend, by_one)]


def drop(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: value for name, value in values.items() if name not in TIMING}


@pytest.mark.timeout(240)
def test_a_job_on_two_nodes(backend: Backend) -> None:
    add_rows(backend, make_rows())
    one, other = node_workers(backend)
    with one, other:
        job_id = submit(backend, **SHORT, nodes=2).id
        assert run_to_end(backend, job_id).status.value == "succeeded", events(backend, job_id)
