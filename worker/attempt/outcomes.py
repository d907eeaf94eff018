"""Outcome of an attempt, by how its trainer ended."""

import logging
import signal
from dataclasses import dataclass

from core.disk_space import GOES_ON, full_disk_detail, is_out_of_space, purpose_of
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import AttemptOutcome
from core.domain.trainer_protocol import Done, Failed, Stopped
from worker.attempt.stop_reasons import StopReason

RUNTIME_DETAIL = "The job has run for max_runtime_seconds. Its checkpoints are kept: retry it with a higher limit."
_CODES = {code.value: code for code in FailureCode}
_FINAL_CODES = frozenset(
    {
        FailureCode.BAD_DATA,
        FailureCode.BAD_BASE_MODEL,
        FailureCode.BAD_SPEC,
        FailureCode.NON_FINITE_LOSS,
        FailureCode.GPU_OOM,
    }
)
"""Another try would end the same way. The others may be this machine's fault, unless the trainer says it recurs."""
_MIB = 1024**2
_CAUSES_OF_MACHINES = frozenset({FailureCode.HOST_OOM, FailureCode.DISK_FULL, FailureCode.NODES_UNREACHABLE})
"""Worth another try, perhaps elsewhere; a job that is given up for them says so."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainerEnd:
    """End of a trainer process."""

    last: Done | Stopped | Failed | None
    """Its last word, if it had one."""
    returncode: int
    stop_reason: StopReason | None = None
    """What it was asked to stop for."""
    was_ended: bool = False
    """Whether a signal of the supervisor ended it, because it did not stop."""
    has_spoken_nonsense: bool = False
    was_out_of_memory: bool = False
    """The kernel killed a process of our control group for memory meanwhile."""
    peak_bytes: int | None = None
    """Most memory that the trainer had at once, where it is known."""
    memory_limit_bytes: int | None = None
    """Limit of our control group, where it has one."""


@dataclass(frozen=True, kw_only=True)
class Publish:
    done: Done


@dataclass(frozen=True, kw_only=True)
class StopHere:
    reason: StopReason


@dataclass(frozen=True, kw_only=True)
class Fail:
    code: FailureCode
    detail: str


@dataclass(frozen=True, kw_only=True)
class GiveBack:
    outcome: AttemptOutcome
    detail: str | None = None
    code: FailureCode | None = None
    """The cause, if the job is given up for it."""


Verdict = Publish | StopHere | Fail | GiveBack


def judge(end: TrainerEnd) -> Verdict:
    match end.last:
        case Done():
            return Publish(done=end.last)
        case Failed():
            return _judge_failure(end.last)
        case Stopped() if end.stop_reason is not None:
            return StopHere(reason=end.stop_reason)
        case Stopped(is_planned=True):
            return StopHere(reason=StopReason.RUNG)
    if end.was_ended and end.stop_reason is not None:
        return StopHere(reason=end.stop_reason)
    cause = FailureCode.HOST_OOM if end.was_out_of_memory else None
    return GiveBack(outcome=AttemptOutcome.CRASHED, detail=_describe_crash(end), code=cause)


def judge_os_error(error: OSError) -> GiveBack:
    """Return the verdict on an error of this worker's operating system, which another worker may not have."""
    if is_out_of_space(error):
        detail = full_disk_detail(purpose_of(error) or "the files of this attempt", GOES_ON)
        return GiveBack(outcome=AttemptOutcome.CRASHED, detail=detail, code=FailureCode.DISK_FULL)
    _log.exception("an attempt met an operating-system error")
    return GiveBack(outcome=AttemptOutcome.CRASHED, detail="The worker met an error of its operating system.")


def _judge_failure(failed: Failed) -> Verdict:
    code = _CODES.get(failed.code, FailureCode.INTERNAL)
    if code in _FINAL_CODES or failed.recurs:
        return Fail(code=code, detail=failed.detail)
    cause = code if code in _CAUSES_OF_MACHINES else None
    return GiveBack(outcome=AttemptOutcome.CRASHED, detail=failed.detail, code=cause)


def _describe_crash(end: TrainerEnd) -> str:
    if end.has_spoken_nonsense:
        return "It wrote something that is not a message."
    if end.was_out_of_memory:
        facts = _describe_memory(end)
        return f"The machine has too little memory for it{facts}: use a smaller base model, max_length or LoRA."
    if end.returncode == -signal.SIGKILL:
        return "It was killed (SIGKILL), as by an operator or for memory."
    if end.returncode < 0:
        return f"It was ended by {_signal_name(-end.returncode)}."
    return f"It ended with exit status {end.returncode} and without a result."


def _describe_memory(end: TrainerEnd) -> str:
    facts = []
    if end.peak_bytes is not None:
        facts.append(f"the trainer had up to {end.peak_bytes // _MIB:,} MiB")
    if end.memory_limit_bytes is not None:
        facts.append(f"the limit of worker and trainer is {end.memory_limit_bytes // _MIB:,} MiB")
    return f" ({', '.join(facts)})" if facts else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
