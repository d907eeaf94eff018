"""What a failed trainer says, and whether the job is tried again: what any attempt meets again ends it at once."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_spec import JobSpec
from core.domain.jobs.job_state import AttemptOutcome
from core.domain.trainer_protocol import ASSIGNMENT_FILE, Failed, decode_trainer_message, encode_message
from core.training.failures import BadCheckpoint, PolicyNotSavedWell
from worker.attempt.outcomes import Fail, GiveBack, TrainerEnd, judge
from worker.processes.trainer.__main__ import last_words


def verdict_of(error: Exception) -> Fail | GiveBack:
    messages = [decode_trainer_message(encode_message(message)) for message in last_words(error)]
    last = messages[-1] if messages else None
    assert last is None or isinstance(last, Failed)
    verdict = judge(TrainerEnd(last=last, returncode=1))
    assert isinstance(verdict, Fail | GiveBack)
    return verdict


@pytest.mark.parametrize(
    "error", [IndexError("12 of 10"), KeyError("x"), AssertionError(), PolicyNotSavedWell("Not the trained one.")]
)
def test_what_recurs_ends_the_job_at_once(error: Exception) -> None:
    verdict = verdict_of(error)
    assert isinstance(verdict, Fail)
    assert verdict.code is FailureCode.INTERNAL


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), OSError(errno.EIO, "I/O error")])
def test_what_may_be_the_machines_fault_is_tried_again(error: Exception) -> None:
    verdict = verdict_of(error)
    assert isinstance(verdict, GiveBack)
    assert (verdict.outcome, verdict.code) == (AttemptOutcome.CRASHED, None)


def test_a_full_disk_is_called_one() -> None:
    verdict = verdict_of(OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(verdict, GiveBack)
    assert verdict.code is FailureCode.DISK_FULL


def test_an_unusable_checkpoint_is_told_before_the_failure() -> None:
    assert [type(message).__name__ for message in last_words(BadCheckpoint("Damaged."))] == ["TrainerEvent", "Failed"]


def test_settings_of_another_version_are_final() -> None:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate({})
    verdict = verdict_of(caught.value)
    assert isinstance(verdict, Fail)
    assert verdict.code is FailureCode.BAD_SPEC


def test_the_traceback_of_a_failed_trainer_is_written(tmp_path: Path) -> None:
    """The real process, on an assignment that is none."""
    (tmp_path / ASSIGNMENT_FILE).write_text(json.dumps({"job_id": "job_1"}))
    command = [sys.executable, "-m", "worker.processes.trainer", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said, log = process.stdout.read(), process.stderr.read().decode()
    assert isinstance(decode_trainer_message(said.splitlines()[-1] + b"\n"), Failed)
    assert "Traceback (most recent call last)" in log
    assert "in train" in log
    assert "NoneType: None" not in log
