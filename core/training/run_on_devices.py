"""A run on the devices its plan names: this process's part of it, alone or as one of the ranks that were launched.

`core.training.launcher` starts one process per device. Rank 0 leads: it alone makes the plan, which the others get
through the store of the launch, and it alone has an observer.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from core.training.checkpoints.digests import run_digest
from core.training.checkpoints.files import STATE_FILE
from core.training.failures import BadData, BadPlan, BadStageOutput
from core.training.lockstep import LockstepObserver
from core.training.observer import CheckpointRef, Observer
from core.training.pipeline import TrainingResult, run
from core.training.plan import TrainingPlan
from core.training.ranks import Ranks

_TIMEOUT = timedelta(minutes=30)
"""Time limit of one exchange: the others wait while the leader writes a checkpoint."""
_PLAN_TIMEOUT = timedelta(minutes=1)
"""Time of one wait for another rank's word, after which it waits on; the agent ends a rank whose others are gone."""
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


@dataclass
class Member:
    """This process as one rank of a launched group."""

    ranks: Ranks
    node: int
    store: Store
    _num_runs: int = field(default=0, init=False)

    @classmethod
    def of_launch(cls) -> "Member | None":
        """Return the place that `core.training.launcher` gave to this process; None if nothing launched it."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return None
        env = os.environ
        store = TCPStore(env["MASTER_ADDR"], int(env["MASTER_PORT"]), is_master=False, wait_for_workers=False)
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        ranks = Ranks(*(int(env[name]) for name in names))
        return cls(ranks, int(env["GROUP_RANK"]), PrefixStore(env["TORCHELASTIC_RUN_ID"], store))

    def lead(self, plan: TrainingPlan, observer: Observer) -> TrainingResult:
        """Run rank 0's part of a plan, and let the others run theirs.

        Raises:
            BadPlan: it is for another number of devices than were launched.
        """
        if plan.num_devices != self.ranks.size:
            raise BadPlan(f"num_devices is {plan.num_devices}, and {self.ranks.size} processes were started.")
        self.store.set(f"{self._plan_key}/identity", _identity(plan))
        self.store.set(self._plan_key, plan.to_json())
        return self._run(plan, LockstepObserver(self.ranks, observer))

    def follow(
        self,
        *,
        localise: Callable[[TrainingPlan], TrainingPlan] | None = None,
        tell_checkpoint: Callable[[CheckpointRef], None] | None = None,
    ) -> None:
        """Run another rank's part of what the leader runs.

        An output that cannot be reused is noticed by all ranks alike; the leader's next plan does without it.

        Args:
            localise: gives the plan with the paths and the device of this node, where that is not the leader's.
            tell_checkpoint: is told of the files that the ranks of this node have written of a checkpoint.

        Raises:
            BadData: this node has other rows, or another base model, than the leader's.
        """
        while True:
            self.await_word(self._plan_key)
            text = str(self.store.get(self._plan_key), "utf-8")
            if not text:
                return
            plan = TrainingPlan.from_json(text)
            if localise is not None:
                plan = localise(plan)
                self._require_equal(plan)
            plan = replace(plan, device=_device(plan.device, self.ranks.local_rank))
            try:
                self._run(plan, LockstepObserver(self.ranks, None, tell_checkpoint))
            except BadStageOutput:
                continue
            return

    def dismiss(self) -> None:
        """Let the other ranks go, instead of a plan."""
        self.store.set(self._plan_key, "")

    def tell(self, word: str) -> None:
        """Let the other ranks know."""
        self.store.set(word, "")

    def await_word(self, word: str) -> None:
        """Wait until another rank tells; the agent ends a rank whose others are gone."""
        while True:
            try:
                self.store.wait([word], _PLAN_TIMEOUT)
            except dist.DistStoreError:
                continue
            return

    def _require_equal(self, plan: TrainingPlan) -> None:
        if _identity(plan) != str(self.store.get(f"{self._plan_key}/identity"), "utf-8"):
            raise BadData(
                f"Node {self.node} has other tokenised rows, base model, version or checkpoint than node 0: give "
                "all workers of a job on several nodes one version and the same models."
            )

    @property
    def _plan_key(self) -> str:
        return f"plan/{self._num_runs}"

    def _run(self, plan: TrainingPlan, observer: LockstepObserver) -> TrainingResult:
        store = PrefixStore(f"run/{self._num_runs}", self.store)
        self._num_runs += 1
        with _process_group(store, self.ranks, plan.device):
            return run(plan, observer, self.ranks)


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


def _identity(plan: TrainingPlan) -> str:
    """Return what all nodes of a run must have alike: settings and data, and the checkpoint to go on from."""
    state = b"" if plan.resume_from is None else (Path(plan.resume_from) / STATE_FILE).read_bytes()
    return f"{run_digest(plan)}:{sha256(state).hexdigest()}"


def _device(first: str, local_rank: int) -> str:
    """Return the device of a rank: `cuda:2` for local rank 1 when the leader has `cuda:1`."""
    kind, _, number = first.partition(":")
    return first if kind == "cpu" else f"{kind}:{int(number or 0) + local_rank}"
