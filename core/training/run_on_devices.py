"""A run on the devices its plan names: one process for each, connected through a file, ended together.

This process leads and is rank 0; it starts the others (`python -m core.training.follower`) on the same plan. A follower
dies when the leader does, at the end of its standard input; a follower that dies ends the leader's run.
"""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from core.training.failures import TrainingFailure
from core.training.lockstep import LockstepObserver
from core.training.observer import Observer
from core.training.pipeline import TrainingResult, run
from core.training.plan import TrainingPlan
from core.training.ranks import Ranks

MEETING_FILE = "meeting"
PLAN_FILE = "plan.json"
_TIMEOUT = timedelta(minutes=30)
"""Time limit of one exchange: the others wait while the leader writes a checkpoint."""
_END_SECONDS = 60
_NEWS_SECONDS = 5
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


class RankLost(TrainingFailure):
    """Raised when a rank's process ended; the run can continue from its last checkpoint."""

    code = "rank-lost"
    title = "A process of the run ended"


def run_on_devices(plan: TrainingPlan, observer: Observer) -> TrainingResult:
    """Run `pipeline.run` on `plan.num_devices` devices.

    Raises:
        RankLost: another rank's process ended before its time.
        TrainingFailure, TrainingStopped: as `pipeline.run`.
    """
    if plan.num_devices == 1:
        return run(plan, observer)
    ranks = Ranks(0, plan.num_devices)
    Path(plan.work_dir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=plan.work_dir) as folder:
        (Path(folder) / PLAN_FILE).write_text(plan.to_json(), encoding="utf-8")
        with _followers(Path(folder), plan) as followers:
            try:
                with membership(Path(folder), ranks, plan.device):
                    return run(plan, LockstepObserver(ranks, observer), ranks)
            except RuntimeError as error:  # what a collective says when its peer is gone
                if any(_has_failed(follower) for follower in followers):
                    raise RankLost("A process that trains on one of the devices ended.") from error
                raise


def follow(folder: Path, rank: int) -> None:
    """Run the part of a rank other than the leader."""
    plan = TrainingPlan.from_json((folder / PLAN_FILE).read_text(encoding="utf-8"))
    ranks = Ranks(rank, plan.num_devices)
    plan = replace(plan, device=_device(plan.device, rank))
    with membership(folder, ranks, plan.device):
        run(plan, LockstepObserver(ranks, None), ranks)


@contextmanager
def membership(folder: Path, ranks: Ranks, device: str) -> Iterator[None]:
    """Join the process group of all ranks of one machine inside the context."""
    if sys.platform.startswith("linux"):
        for name, interface in _LOOPBACK.items():
            os.environ.setdefault(name, interface)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
        store=dist.FileStore(str(folder / MEETING_FILE), ranks.size),  # type: ignore[attr-defined]
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=_TIMEOUT,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _followers(folder: Path, plan: TrainingPlan) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the processes of the other ranks; all are ended on the way out."""
    command = [sys.executable, "-P", "-m", "core.training.follower", str(folder)]
    processes = [
        subprocess.Popen([*command, str(rank)], stdin=subprocess.PIPE, stdout=2) for rank in range(1, plan.num_devices)
    ]
    for process in processes:
        threading.Thread(target=_watch, args=(process,), name=f"rank {process.pid}", daemon=True).start()
    try:
        yield processes
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def _has_failed(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process failed, waiting briefly: a broken connection may be seen before the death behind it."""
    try:
        return process.wait(_NEWS_SECONDS) != 0
    except subprocess.TimeoutExpired:
        return False


def _watch(process: subprocess.Popen[bytes]) -> None:
    """End the group some time after a rank fails: gloo reports a lost peer, NCCL may wait for it."""
    if process.wait() not in (0, -9) and dist.is_initialized():
        threading.Event().wait(_END_SECONDS)
        if dist.is_initialized():
            os._exit(70)


def _device(first: str, rank: int) -> str:
    """Return the device of a rank: `cuda:2` for rank 1 when the leader has `cuda:1`."""
    kind, _, number = first.partition(":")
    return first if kind == "cpu" else f"{kind}:{int(number or 0) + rank}"
