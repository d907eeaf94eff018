"""Checkpoints: complete or absent, strict when read (T20), and refused for another run."""

import dataclasses
import errno
import json
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.training.checkpoints import files as module
from core.training.checkpoints.files import STATE_FILE, Checkpoint, copy_exactly, read_checkpoint, write_checkpoint
from core.training.checkpoints.tensor_files import UnreadableTensors, complete_directory, read_tensors, write_tensors
from core.training.checkpoints.writer import CheckpointWriter, Snapshot
from core.training.data.order import Cursor
from core.training.failures import BadCheckpoint
from core.training.observer import Stage


def make_checkpoint(policy_dir: Path | None = None) -> Checkpoint:
    return Checkpoint(
        stage=Stage.DPO,
        step=7,
        cursor=Cursor(epoch=1, position=12),
        run_digest="digest",
        versions={"torch": "2"},
        micro_batch_tokens=64,
        facts={"best": 0.1 + 0.2, "evaluation": {"loss": None}},
        tensors={
            "policy": {"b": torch.randn(3, 2), "a": torch.randn(4)},
            "rng": {"cpu": torch.get_rng_state()},
            "reference": {"empty": torch.zeros(0, 2), "scalar": torch.tensor(3), "half": torch.ones(3).bfloat16()},
        },
        policy_dir=policy_dir,
    )


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    policy = tmp_path / "sft"
    (policy / "inner").mkdir(parents=True)
    (policy / "inner" / "weights").write_bytes(b"abc")
    written = make_checkpoint(policy)
    directory = write_checkpoint(tmp_path / "checkpoints", written)
    read = read_checkpoint(directory, "digest")
    own = {name: torch.zeros_like(tensor) for name, tensor in written.tensors["policy"].items()}
    read.load_weights("policy", own, "policy")
    found = {**read.tensors, "policy": own}
    assert read.groups == found.keys()
    for group, tensors in written.tensors.items():
        assert found[group].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[group][name].dtype == tensor.dtype
            assert torch.equal(found[group][name], tensor)
    assert read.policy_dir is not None
    assert (read.policy_dir / "inner" / "weights").read_bytes() == b"abc"
    plain = {"tensors": {}, "policy_dir": None, "stored_weights": frozenset(), "directory": None}
    assert dataclasses.replace(read, **plain) == dataclasses.replace(written, **plain)


def test_files_are_plain_safetensors(tmp_path: Path) -> None:
    tensors = {"x": torch.randn(2, 3).bfloat16(), "y": torch.arange(5)}
    write_tensors(tmp_path / "file.safetensors", tensors)
    for name, tensor in load_file(tmp_path / "file.safetensors").items():
        assert torch.equal(tensor, tensors[name])
    assert (tmp_path / "file.safetensors").stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_written_is_told_as_the_system_tells_it(tmp_path: Path) -> None:
    """In the middle of a tensor: a full disk must be known as one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_tensors(tmp_path / "file.safetensors", {"x": torch.zeros(2**19)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG


def test_names_are_new_every_time_and_nothing_hidden_remains(tmp_path: Path) -> None:
    first, second = (write_checkpoint(tmp_path, make_checkpoint()) for _ in range(2))
    assert first != second
    assert sorted(tmp_path.iterdir()) == sorted([first, second])


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with complete_directory(tmp_path / "checkpoint") as hidden:
            (hidden / "file").write_text("half")
            full_disk()

    with pytest.raises(OSError, match="No space"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [STATE_FILE, "policy.safetensors", "rng.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "gone", "overwritten"])
def test_damage_is_seen(name: str, damage: str, tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path, make_checkpoint())
    path = directory / name
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 5)
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"\x00" * path.stat().st_size)
    with pytest.raises(BadCheckpoint, match="damaged"):
        read_checkpoint(directory, "digest")


def test_another_run_or_layout_is_refused(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path, make_checkpoint())
    with pytest.raises(BadCheckpoint, match="other settings"):
        read_checkpoint(directory, "another digest")
    state = json.loads((directory / STATE_FILE).read_text())
    (directory / STATE_FILE).write_text(json.dumps(state | {"version": module.SHARDED_VERSION + 1}))
    with pytest.raises(BadCheckpoint, match="layout version"):
        read_checkpoint(directory, "digest")


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"a": torch.zeros(2)}, "lacks 1 tensors"),
        ({"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}, "does not, such as c"),
        ({"a": torch.zeros(2), "b": torch.zeros(4)}, "b does not fit"),
        ({"a": torch.zeros(2), "b": torch.zeros(3, dtype=torch.float64)}, "b does not fit"),
    ],
    ids=["missing", "unexpected", "shape", "type"],
)
def test_loading_is_strict_and_all_or_nothing(saved: dict[str, torch.Tensor], message: str) -> None:
    own = {"a": torch.ones(2), "b": torch.ones(3)}
    with pytest.raises(BadCheckpoint, match=message):
        copy_exactly(own, saved, "policy")
    assert all(bool((tensor == 1).all()) for tensor in own.values())


def test_unreadable_tensors_have_their_own_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTensors):
        read_tensors(tmp_path / "missing")


class Announcements:
    def __init__(self) -> None:
        self.checkpoints: list[object] = []
        self.events: list[str] = []

    def checkpoint(self, ref: object) -> None:
        self.checkpoints.append(ref)

    def event(self, level: str, kind: str, message: str, data: object) -> None:
        self.events.append(kind)


def full_disk(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_one_checkpoint_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announcements = Announcements()
    writer = CheckpointWriter(tmp_path, "digest", {}, announcements)  # type: ignore[arg-type]
    snapshot = Snapshot(stage=Stage.SFT, step=1, micro_batch_tokens=1, facts={}, tensors={"policy": {}})
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_tensors", full_disk)
        writer.try_to_write(snapshot)
        with pytest.raises(OSError, match="No space"):
            writer.write(snapshot)
    assert (announcements.events, announcements.checkpoints) == (["disk_full"], [])
    assert list(tmp_path.iterdir()) == []
    writer.try_to_write(snapshot)
    assert len(announcements.checkpoints) == 1
