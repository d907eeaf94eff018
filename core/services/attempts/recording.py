"""Records of a running attempt: points, events, samples, stages, progress. All fenced, all idempotent."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import attempts as attempt_rows
from core.database.repositories import metrics
from core.database.repositories.events import EventDraft, append_event
from core.database.tables.jobs import Job, JobStage
from core.database.tables.records import JobSample, RewoundPoint
from core.domain.doctor.findings import Finding
from core.domain.jobs.job_state import Stage
from core.domain.trainer_protocol import MetricPoint, Progress, StageChanged, TrainerEvent
from core.domain.training.metric_names import TIMING
from core.failpoints import reach
from core.services.attempts.claimed_job import ClaimedJob, fenced
from core.services.curves import blocks
from core.services.ids import new_suffix

MAX_MESSAGE_CHARS = 4096
DOCTOR = "doctor"
"""Kind of the events that hold a finding: `rule`, `message`, `advice`, `stage`, `step`, `evidence`."""


def record_points(claim: ClaimedJob, points: Sequence[MetricPoint]) -> None:
    """Record one point per (stage, split, step) for ever; an existing one stays as it is."""
    if points:
        _record_points(claim, points)
        reach("points.committed")


@fenced
def _record_points(session: Session, job: Job, claim: ClaimedJob, points: Sequence[MetricPoint]) -> None:
    by_key: dict[metrics.PointKey, MetricPoint] = {
        (Stage(point.stage), point.split, point.step): point for point in reversed(points)
    }
    in_order = dict(reversed(by_key.items()))
    known = metrics.existing_keys(session, job.id, in_order)
    fresh = {key: point for key, point in in_order.items() if key not in known}
    if not fresh:
        return
    rows = []
    for (stage, split, step), point in fresh.items():
        job.last_metric_seq += 1
        rows.append(
            {
                "job_id": job.id,
                "stage": stage,
                "split": split,
                "step": step,
                "project_id": job.project_id,
                "attempt": claim.attempt,
                "seq": job.last_metric_seq,
                "epoch": point.epoch,
                "values": finite(point.values),
            }
        )
    metrics.insert_points(session, rows)
    blocks.extend(session, job, fresh.keys())
    _compare_replayed(session, job, claim, fresh)
    _show_progress(job, [point for point in fresh.values() if point.split == "train"])
    reach("points.in_transaction")


def finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Replace NaN and infinities by null, since JSON has neither."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}


def _show_progress(job: Job, points: Sequence[MetricPoint]) -> None:
    if not points or points[-1].stage != job.stage:
        return
    job.step = max(job.step, points[-1].step)
    speed = points[-1].values.get("tokens_per_second")
    if speed is not None and math.isfinite(speed):
        job.tokens_per_second = speed


def _compare_replayed(
    session: Session, job: Job, claim: ClaimedJob, fresh: Mapping[metrics.PointKey, MetricPoint]
) -> None:
    """Compare recomputed steps after a resume; differing numbers are reported once per attempt."""
    rewound = metrics.take_rewound(session, job.id, fresh.keys())
    different = [key for key, old in rewound.items() if _differs(old, fresh[key])]
    if not different:
        return
    attempt = attempt_rows.find_attempt(session, job.id, claim.attempt)
    is_first = attempt.num_divergent_points == 0
    attempt.num_divergent_points += len(different)
    if not is_first:
        return
    key = min(different, key=lambda key: key[2])
    stage, split, step = key
    message = f"After the resume, {stage.value} step {step} ({split}) gave other numbers than before the interruption."
    data = {
        "stage": stage,
        "split": split,
        "step": step,
        "before": rewound[key].values,
        "after": finite(fresh[key].values),
    }
    event = EventDraft(kind="resume_divergence", level="warning", message=message, data=data, actor=claim.worker)
    append_event(session, job, event)


def _differs(old: RewoundPoint, new: MetricPoint) -> bool:
    values = finite(new.values)
    names = (old.values.keys() & values.keys()) - TIMING  # a figure in one alone is another version's
    return any(old.values[name] != values[name] for name in names)


@fenced
def record_progress(session: Session, job: Job, claim: ClaimedJob, progress: Progress) -> None:
    """Record the progress of a stage that has no metric point."""
    job.stage = Stage(progress.stage)
    job.step = progress.step
    job.total_steps = progress.total_steps
    if progress.tokens_per_second is not None:
        job.tokens_per_second = finite({"speed": progress.tokens_per_second})["speed"]


def stage_changed(claim: ClaimedJob, change: StageChanged, *, reused_from: str | None = None) -> None:
    """Record a stage's new state; `reused_from` names the job whose output was reused."""
    _change_stage(claim, change, reused_from, new_suffix())
    reach("stage.committed")


@fenced
def _change_stage(
    session: Session, job: Job, claim: ClaimedJob, change: StageChanged, reused_from: str | None, token: str
) -> None:
    stage = Stage(change.stage)
    row = attempt_rows.find_stage(session, job.id, stage)
    if row is None:
        row = JobStage(
            job_id=job.id, stage=stage, project_id=job.project_id, status="started", started_at=database_now()
        )
        session.add(row)
    has_ended = change.status != "started"
    row.status = change.status
    row.finished_at = database_now() if has_ended else None
    row.steps = max(change.step, change.total_steps) if has_ended else change.total_steps
    row.reused_from = reused_from
    job.stage = stage
    job.step = change.step
    job.total_steps = change.total_steps
    data: dict[str, Any] = {"stage": stage, "status": change.status, "reused_from": reused_from}
    source = f", taken over from {reused_from}" if reused_from else ""
    message = f"Stage {stage.value}: {change.status}{source}."
    event = EventDraft(kind="stage", message=message, data=data, actor=claim.worker, token=token)
    append_event(session, job, event)
    reach("stage.in_transaction")


def record_events(claim: ClaimedJob, events: Sequence[TrainerEvent]) -> None:
    """Record events; of an attempt on several nodes those of node 0."""
    if events and claim.place.node == 0:  # what node 0 meets, the others may meet too
        _record_events(claim, events, [new_suffix() for _ in events])


@fenced
def _record_events(
    session: Session, job: Job, claim: ClaimedJob, events: Sequence[TrainerEvent], tokens: Sequence[str]
) -> None:
    for token, event in zip(tokens, events, strict=True):
        draft = EventDraft(
            kind=event.kind[:255],
            level=event.level,
            message=event.message[:MAX_MESSAGE_CHARS],
            data=event.data,
            actor=claim.worker,
            token=token,
        )
        append_event(session, job, draft)
    reach("events.in_transaction")


def record_findings(claim: ClaimedJob, findings: Sequence[Finding]) -> None:
    """Record findings as events of kind `doctor`: each rule once per job, however often it is attempted."""
    if findings:
        _record_findings(claim, findings)


@fenced
def _record_findings(session: Session, job: Job, claim: ClaimedJob, findings: Sequence[Finding]) -> None:
    for finding in findings:
        draft = EventDraft(
            kind=DOCTOR,
            level=finding.level,
            message=f"{finding.message} {finding.advice}",
            data=asdict(finding) | {"evidence": finite(finding.evidence)},
            actor=claim.worker,
            token=f"{DOCTOR}:{finding.rule}:{finding.stage}",
        )
        append_event(session, job, draft)


@fenced
def record_samples(
    session: Session, job: Job, claim: ClaimedJob, step: int, samples: Sequence[Mapping[str, str]]
) -> None:
    """Replace the samples: `prompt`, `reference` and `policy`, in the order of the spec's prompts."""
    for position, sample in enumerate(samples):
        session.merge(
            JobSample(
                job_id=job.id,
                position=position,
                project_id=job.project_id,
                step=step,
                prompt=sample["prompt"],
                reference=sample["reference"],
                policy=sample["policy"],
            )
        )
    reach("samples.in_transaction")
