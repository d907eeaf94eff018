"""A run on the devices its plan names: this process's part of it, alone or as one of the ranks that were launched.

`core.training.launcher` starts one process per device. Rank 0 leads: it alone makes the plan, which the others get
through the store of the launch, and it alone has an observer.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from core.training.failures import BadPlan, BadStageOutput
from core.training.lockstep import LockstepObserver
from core.training.observer import Observer
from core.training.pipeline import TrainingResult, run
from core.training.plan import TrainingPlan
from core.training.ranks import Ranks

_TIMEOUT = timedelta(minutes=30)
"""Time limit of one exchange: the others wait while the leader writes a checkpoint."""
_PLAN_TIMEOUT = timedelta(minutes=1)
"""Time of one wait for the leader's plan; the agent ends a rank whose leader is gone."""
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


@dataclass
class Member:
    """This process as one rank of a launched group."""

    ranks: Ranks
    local_rank: int
    """Rank among those of this node, each of which has a device."""
    store: Store
    _num_runs: int = field(default=0, init=False)

    @classmethod
    def of_launch(cls) -> "Member | None":
        """Return the place that `core.training.launcher` gave to this process; None if nothing launched it."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return None
        env = os.environ
        store = TCPStore(env["MASTER_ADDR"], int(env["MASTER_PORT"]), is_master=False, wait_for_workers=False)
        ranks = Ranks(int(env["RANK"]), int(env["WORLD_SIZE"]))
        return cls(ranks, int(env["LOCAL_RANK"]), PrefixStore(env["TORCHELASTIC_RUN_ID"], store))

    def lead(self, plan: TrainingPlan, observer: Observer) -> TrainingResult:
        """Run rank 0's part of a plan, and let the others run theirs.

        Raises:
            BadPlan: it is for another number of devices than were launched.
        """
        if plan.num_devices != self.ranks.size:
            raise BadPlan(f"num_devices is {plan.num_devices}, and {self.ranks.size} processes were started.")
        self.store.set(self._plan_key, plan.to_json())
        return self._run(plan, observer)

    def follow(self) -> None:
        """Run another rank's part of what the leader runs.

        An output that cannot be reused is noticed by all ranks alike; the leader's next plan does without it.
        """
        while True:
            plan = TrainingPlan.from_json(self._await_plan())
            try:
                self._run(replace(plan, device=_device(plan.device, self.local_rank)), None)
            except BadStageOutput:
                continue
            return

    @property
    def _plan_key(self) -> str:
        return f"plan/{self._num_runs}"

    def _await_plan(self) -> str:
        while True:
            try:
                self.store.wait([self._plan_key], _PLAN_TIMEOUT)
            except dist.DistStoreError:
                continue
            return str(self.store.get(self._plan_key), "utf-8")

    def _run(self, plan: TrainingPlan, observer: Observer | None) -> TrainingResult:
        store = PrefixStore(f"run/{self._num_runs}", self.store)
        self._num_runs += 1
        with _process_group(store, self.ranks, plan.device):
            return run(plan, LockstepObserver(self.ranks, observer), self.ranks)


def run_on_devices(plan: TrainingPlan, observer: Observer, member: Member | None = None) -> TrainingResult:
    """Run `pipeline.run` on `plan.num_devices` devices: alone, or as the leader of a launched group.

    Raises:
        TrainingFailure, TrainingStopped: as `pipeline.run`.
    """
    if member is not None:
        return member.lead(plan, observer)
    if plan.num_devices != 1:
        raise BadPlan("A run on several devices is launched with a process for each (core.training.launcher).")
    return run(plan, observer)


@contextmanager
def _process_group(store: Store, ranks: Ranks, device: str) -> Iterator[None]:
    """Join the process group of all ranks inside the context."""
    if sys.platform.startswith("linux"):
        for name, interface in _LOOPBACK.items():
            os.environ.setdefault(name, interface)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
        store=store,
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=_TIMEOUT,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _device(first: str, local_rank: int) -> str:
    """Return the device of a rank: `cuda:2` for local rank 1 when the leader has `cuda:1`."""
    kind, _, number = first.partition(":")
    return first if kind == "cpu" else f"{kind}:{int(number or 0) + local_rank}"
