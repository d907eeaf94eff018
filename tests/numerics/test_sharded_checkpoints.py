"""Checkpoints that several ranks write, each its parts, and any number of ranks reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shard_ranks import SHAPES, checkpoint_of, whole_tensors

from core.training.checkpoints.files import read_checkpoint, write_checkpoint
from core.training.failures import BadCheckpoint

SUPPORT = Path(__file__).resolve().parents[1] / "support"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`written` by three ranks, `full` where one of them found a full disk, `whole` of one process, which they read."""
    folder = tmp_path_factory.mktemp("ranks")
    write_checkpoint(folder / "whole", checkpoint_of(whole_tensors()))
    path = os.pathsep.join(map(str, (SUPPORT.parents[1], SUPPORT)))
    subprocess.run(
        [sys.executable, str(SUPPORT / "shard_ranks.py"), str(folder)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        check=True,
        timeout=200,
    )
    return folder


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    (directory,) = (folder / "written").iterdir()
    return directory


def test_one_process_reads_what_three_ranks_wrote(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        *(f"policy-0000{number}-of-00003.safetensors" for number in (1, 2, 3)),
        "rng.safetensors",
        "state.json",
    ]
    own = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    read_checkpoint(written, "run").load_weights("policy", own, "policy")
    for name, tensor in whole_tensors().items():
        assert torch.equal(own[name], tensor), name


def test_a_rank_whose_disk_is_full_fails_all_and_nothing_is_left(folder: Path) -> None:
    assert list((folder / "full").iterdir()) == []


@pytest.mark.parametrize("damage", ["gone", "cut", "another"])
def test_damage_of_one_ranks_file_is_seen(damage: str, written: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in written.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    victim = copy / "policy-00002-of-00003.safetensors"
    if damage == "gone":
        victim.unlink()
    elif damage == "cut":
        os.truncate(victim, victim.stat().st_size - 5)
    else:
        victim.write_bytes((copy / "policy-00001-of-00003.safetensors").read_bytes())
    with pytest.raises(BadCheckpoint, match="damaged"):
        read_checkpoint(copy, "run")


def test_parts_of_another_run_are_refused(written: Path) -> None:
    checkpoint = read_checkpoint(written, "run")
    own = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    for wrong, message in (
        ({**own, "wide": torch.zeros(7, 6)}, "wide does not fit"),
        ({**own, "wide": torch.zeros(7, 5).half()}, "wide does not fit"),
        ({**own, "more": torch.zeros(1)}, "lacks 1 tensors of the policy, such as more"),
        ({name: tensor for name, tensor in own.items() if name != "few"}, "such as few"),
    ):
        with pytest.raises(BadCheckpoint, match=message):
            checkpoint.load_weights("policy", wrong, "policy")
    assert all(not tensor.any() for tensor in own.values())
