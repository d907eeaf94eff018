"""Resources of a worker, for its attempts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from core.services.backend import Backend
from worker.attempt.records.tracking import Target
from worker.attempt.trainer_process import LaunchPlan
from worker.device import PrecisionChoice
from worker.drain import Drain
from worker.network import NodeNetwork
from worker.pulse import LaneBeat


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Resources of a worker."""

    backend: Backend
    launch: LaunchPlan
    device: str
    """For the trainer: `cpu` or `cuda:<n>`."""
    device_class: str = ""
    """Class of this worker, within which jobs take alike (`worker.presence`)."""
    drain: Drain
    targets: Sequence[Target] = ()
    """Targets of the live export."""
    precision: PrecisionChoice = field(default_factory=PrecisionChoice)
    """Decided once, by the first trainer."""
    num_devices: int = 1
    """Number of devices, from `device` on."""
    network: NodeNetwork | None = None
    """Where other workers reach it for jobs on several nodes; None: it takes none of these."""
    beat: LaneBeat = field(default_factory=partial(LaneBeat, "training"))
    """Pulse of the lane that trains."""
