"""Closed list of reasons for which a job ends as `failed`, each with the title users see."""

from enum import StrEnum


class FailureCode(StrEnum):
    BAD_DATA = "bad_data"
    BAD_BASE_MODEL = "bad_base_model"
    BAD_SPEC = "bad_spec"
    NON_FINITE_LOSS = "non_finite_loss"
    GPU_OOM = "gpu_oom"
    HOST_OOM = "host_oom"
    DISK_FULL = "disk_full"
    STORE_UNAVAILABLE = "store_unavailable"
    CRASH_LOOP = "crash_loop"
    RUNTIME_EXCEEDED = "runtime_exceeded"
    NODES_UNREACHABLE = "nodes_unreachable"
    INTERNAL = "internal"


TITLES: dict[FailureCode, str] = {
    FailureCode.BAD_DATA: "The data cannot be trained on",
    FailureCode.BAD_BASE_MODEL: "The base model cannot be loaded",
    FailureCode.BAD_SPEC: "The settings do not fit together",
    FailureCode.NON_FINITE_LOSS: "The loss became NaN or infinite",
    FailureCode.GPU_OOM: "The GPU has too little memory",
    FailureCode.HOST_OOM: "The machine has too little memory",
    FailureCode.DISK_FULL: "The worker's disk is full",
    FailureCode.STORE_UNAVAILABLE: "The object store stayed unavailable",
    FailureCode.CRASH_LOOP: "The trainer crashed again and again",
    FailureCode.RUNTIME_EXCEEDED: "The job ran longer than max_runtime_seconds",
    FailureCode.NODES_UNREACHABLE: "The nodes of the job cannot reach each other",
    FailureCode.INTERNAL: "An unexpected error in the trainer",
}
