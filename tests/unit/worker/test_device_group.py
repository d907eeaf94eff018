"""Which of several failed ranks is the cause that the supervisor hears of."""

import signal

from core.children.launched import ENDED_BY_AGENT
from core.domain.jobs.failure_codes import FailureCode
from core.domain.trainer_protocol import Failed, encode_message
from core.training.launcher import RankFailure
from worker.processes.device_group import first_cause


def failed(rank: int, returncode: int = 1, code: FailureCode | None = None, *, seen_at: int = 100) -> RankFailure:
    words = None if code is None else (encode_message(Failed(code=code.value, detail="No.")).decode(),)
    return RankFailure(rank=rank, returncode=returncode, seen_at=seen_at, report=words)


def test_a_typed_failure_is_the_cause_whatever_was_seen_first() -> None:
    others = [failed(0, code=FailureCode.INTERNAL, seen_at=99), failed(2, -signal.SIGKILL), failed(3, ENDED_BY_AGENT)]
    assert first_cause([*others, failed(1, code=FailureCode.GPU_OOM, seen_at=101)]).rank == 1


def test_a_killed_rank_is_the_cause_of_broken_connections() -> None:
    broken = failed(0, code=FailureCode.INTERNAL, seen_at=99)
    assert first_cause([broken, failed(1, -signal.SIGKILL), failed(2, ENDED_BY_AGENT, seen_at=98)]).rank == 1


def test_an_unexpected_error_is_the_cause_of_what_the_agent_ended() -> None:
    found = first_cause([failed(0, ENDED_BY_AGENT, seen_at=98), failed(1, code=FailureCode.INTERNAL)])
    assert found.rank == 1


def test_the_first_of_equals_is_taken() -> None:
    assert first_cause([failed(0, -signal.SIGKILL, seen_at=130), failed(1, -signal.SIGKILL)]).rank == 1
