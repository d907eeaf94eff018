"""Whose failure ended an attempt on several nodes: node 0 weighs what the others report against its own.

When a trainer dies on one node, those of the others see a broken connection; so what is not that is the cause.
"""

from collections.abc import Sequence
from typing import Any

from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import AttemptOutcome
from core.domain.trainer_protocol import Failed
from core.services.attempts.nodes import OtherNode
from worker.attempt.outcomes import Fail, GiveBack, TrainerEnd, Verdict

DRAIN: dict[str, Any] = {"kind": "drain"}
"""Report of a node whose worker is to end."""
_END = "end"


class NodeFailed(Exception):
    """Raised on node 0 when another node reports the end of its part."""

    def __init__(self, other: OtherNode) -> None:
        super().__init__(f"node {other.node} ({other.host})")
        self.verdict = verdict_of(other)


def is_draining(other: OtherNode) -> bool:
    return other.report is not None and other.report["kind"] == DRAIN["kind"]


def has_failed(other: OtherNode) -> bool:
    return other.report is not None and other.report["kind"] == _END


def is_cause(other: OtherNode) -> bool:
    """Whether another node has failed, and of itself."""
    return has_failed(other) and not (other.report or {})["is_consequence"]


def is_consequence(end: TrainerEnd) -> bool:
    """Whether a trainer's end is what the loss of another node's trainer looks like."""
    return isinstance(end.last, Failed) and end.last.code == FailureCode.INTERNAL and not end.last.recurs


def report_of(verdict: Fail | GiveBack, *, is_consequence: bool, log: Sequence[str] = ()) -> dict[str, Any]:
    """Return what another node than node 0 reports of its end; `log`: the last lines of its trainers."""
    facts = {
        "kind": _END,
        "detail": verdict.detail,
        "code": verdict.code,
        "is_consequence": is_consequence,
        "log": list(log),
    }
    return facts | {"outcome": verdict.outcome if isinstance(verdict, GiveBack) else None}


def log_of(other: OtherNode) -> list[str]:
    """Return the last lines of the trainers of a node that has failed."""
    return (other.report or {}).get("log", []) if has_failed(other) else []


def verdict_of(other: OtherNode) -> Fail | GiveBack:
    """Return a reported end as node 0's own."""
    assert other.report is not None
    report = other.report
    detail = f"On node {other.node} ({other.host}): {report['detail'] or 'it ended.'}"
    code = None if report["code"] is None else FailureCode(report["code"])
    if report["outcome"] is None:
        return Fail(code=code or FailureCode.INTERNAL, detail=detail)
    return GiveBack(outcome=AttemptOutcome(report["outcome"]), detail=detail, code=code)


def weigh(own: Verdict, others: tuple[OtherNode, ...]) -> Verdict:
    """Return the cause, where node 0's own end may have followed from another node's."""
    causes = [other for other in others if is_cause(other)]
    return verdict_of(causes[0]) if causes else own
