"""Three ranks that write and read checkpoints: `python shard_ranks.py <folder>` is their agent, and then each rank."""

import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from core.children.launched import launched_rank, leave, obey_agent
from core.training.checkpoints.files import Checkpoint, read_checkpoint, write_checkpoint
from core.training.data.order import Cursor
from core.training.launcher import Group, launch
from core.training.observer import Stage
from core.training.ranks import Ranks

SHAPES = {"wide": (7, 5), "tall": (8,), "single": (1, 3), "few": (2,), "none": (0, 4)}


def whole_tensors() -> dict[str, torch.Tensor]:
    """Tensors whose rows no number of ranks divides, fewer rows than ranks among them."""
    return {
        name: torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape) + number
        for number, (name, shape) in enumerate(SHAPES.items())
    }


def take_part(folder: Path) -> None:
    """Fail to write, write `folder/written`, and read what lies in `folder/whole`."""
    rank = dist.get_rank()
    ranks = Ranks(rank, dist.get_world_size(), local_rank=rank)
    mesh = init_device_mesh("cpu", (ranks.size,))
    parts = {name: distribute_tensor(tensor, mesh, [Shard(0)]) for name, tensor in whole_tensors().items()}
    checkpoint = checkpoint_of(parts)
    with suppress(OSError), full_disk(is_here=ranks.rank == 1):
        write_checkpoint(folder / "full", checkpoint, ranks)
        raise AssertionError("every rank fails if one does")
    write_checkpoint(folder / "written", checkpoint, ranks)
    own = {name: torch.zeros_like(part) for name, part in parts.items()}
    (whole,) = (folder / "whole").iterdir()
    read_checkpoint(whole, "run").load_weights("policy", own, "policy", ranks)
    for name, part in own.items():
        assert isinstance(part, DTensor)
        assert torch.equal(part.to_local(), parts[name].to_local()), name


def checkpoint_of(tensors: Mapping[str, torch.Tensor]) -> Checkpoint:
    return Checkpoint(
        stage=Stage.DPO,
        step=1,
        cursor=Cursor(),
        run_digest="run",
        versions={},
        micro_batch_tokens=1,
        tensors={"policy": tensors, "rng": {"cpu": torch.ones(1)}},
    )


@contextmanager
def full_disk(*, is_here: bool) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 if is_here else limits[0], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


if __name__ == "__main__":
    obey_agent()
    if launched_rank() is None:
        group = Group(run_id="shards", num_ranks=3)
        sys.exit(1 if launch(group, [sys.executable, *sys.argv], Path(sys.argv[1]) / "agent") else 0)
    dist.init_process_group("gloo")
    try:
        take_part(Path(sys.argv[1]))
    finally:
        dist.destroy_process_group()
    leave(0)
