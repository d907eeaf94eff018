"""Reasons why a run ended: typed failures with a code of the closed list and a sentence for users (without paths)."""

from typing import ClassVar

from core.domain.errors import DomainError
from core.domain.jobs.failure_codes import FailureCode


class TrainingFailure(DomainError):
    """Base of failures that end a run. `detail` is shown to users; `failure_code` is stored in the job."""

    title = "The run cannot continue"
    failure_code: ClassVar[FailureCode] = FailureCode.INTERNAL


class BadData(TrainingFailure):
    code = "bad-data"
    title = "The data cannot be trained on"
    failure_code = FailureCode.BAD_DATA


class BadPlan(TrainingFailure):
    code = "bad-plan"
    title = "The settings do not fit together"
    failure_code = FailureCode.BAD_SPEC


class BadBaseModel(TrainingFailure):
    code = "bad-base-model"
    title = "The base model cannot be loaded"
    failure_code = FailureCode.BAD_BASE_MODEL


class NonFiniteLoss(TrainingFailure):
    code = "non-finite-loss"
    title = "The loss became NaN or infinite"
    failure_code = FailureCode.NON_FINITE_LOSS


class GpuOutOfMemory(TrainingFailure):
    code = "gpu-oom"
    title = "The GPU has too little memory"
    failure_code = FailureCode.GPU_OOM


class HostOutOfMemory(TrainingFailure):
    code = "host-oom"
    title = "The machine has too little memory"
    failure_code = FailureCode.HOST_OOM


class DiskFull(TrainingFailure):
    code = "disk-full"
    title = "The worker's disk is full"
    failure_code = FailureCode.DISK_FULL


class BadCheckpoint(TrainingFailure):
    """Raised for a checkpoint that is damaged or of another run; the caller may try an older one."""

    code = "bad-checkpoint"
    title = "The checkpoint cannot be resumed from"
    failure_code = FailureCode.INTERNAL


class BadStageOutput(TrainingFailure):
    """Raised for a reused stage output that is incomplete or of other inputs; the stage is then computed."""

    code = "bad-stage-output"
    title = "The earlier stage's output cannot be reused"
    failure_code = FailureCode.INTERNAL


class PolicyNotSavedWell(TrainingFailure):
    """Raised when the folder that would be published does not hold the trained policy."""

    code = "policy-not-saved-well"
    title = "The saved policy is not the trained one"
    failure_code = FailureCode.INTERNAL


class TrainingStopped(Exception):
    """Raised when the observer asked to stop and the run stopped at a step boundary; not a failure.

    With `has_checkpoint` a checkpoint of exactly that point was announced, or is the one the run was resumed from.
    `is_planned`: nobody asked, the plan pauses there.
    """

    def __init__(self, *, has_checkpoint: bool, is_planned: bool = False) -> None:
        super().__init__("stopped at a step boundary")
        self.has_checkpoint = has_checkpoint
        self.is_planned = is_planned
