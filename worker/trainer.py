"""The trainer process: `python -m worker.trainer <work directory>`. Turns an assignment into a plan and runs it.

The only module of the worker through which torch is loaded. An unexpected error leaves by a traceback on standard
error, which the supervisor keeps in its log, and counts as a crash.
"""

import dataclasses
import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from core.domain.errors import DomainError
from core.domain.failure_codes import FailureCode
from core.domain.trainer_protocol import (
    ASSIGNMENT_FILE,
    Assignment,
    CheckpointWritten,
    Done,
    Failed,
    Hello,
    MetricPoint,
    Progress,
    Resolved,
    SamplesWritten,
    StageChanged,
    StageOutputQuery,
    StageOutputWritten,
    Stopped,
    TrainerEvent,
)
from core.tokenization.errors import NothingToEncode
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.failures import BadCheckpoint, BadStageOutput, TrainingFailure, TrainingStopped
from core.training.observer import CheckpointRef, JsonValue, Level, Sample, Stage, StageOutput, StopRequest
from core.training.pipeline import run
from core.training.plan import ReusePlan, TrainingPlan
from core.training.stage_digests import reference_digest, sft_digest
from worker.link import SupervisorLink
from worker.preparation import Prepared, describe_set_aside, prepare
from worker.trainer_events import CHECKPOINT_UNUSABLE, PAIRS_SET_ASIDE

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


class PipeObserver:
    """Hands on what the engine tells (`core.training.observer.Observer`)."""

    def __init__(self, link: SupervisorLink, tokenizer: PairTokenizer, prompts: Sequence[str], *, shares: bool) -> None:
        self._link = link
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._shares = shares

    def stage_started(self, stage: Stage, total_steps: int, first_step: int) -> None:
        self._link.send(StageChanged(stage=stage.value, status="started", step=first_step, total_steps=total_steps))

    def stage_finished(self, stage: Stage) -> None:
        self._link.send(StageChanged(stage=stage.value, status="finished"))

    def stage_skipped(self, stage: Stage, reason: Literal["skipped", "reused"]) -> None:
        self._link.send(StageChanged(stage=stage.value, status=reason))

    def progress(self, stage: Stage, step: int, total_steps: int, tokens_per_second: float | None) -> None:
        message = Progress(stage=stage.value, step=step, total_steps=total_steps, tokens_per_second=tokens_per_second)
        self._link.send(message)

    def point(self, point: MetricPoint) -> None:
        self._link.send(point)

    def event(self, level: Level, kind: str, message: str, data: Mapping[str, JsonValue]) -> None:
        self._link.send(TrainerEvent(level=level, kind=kind, message=message, data=dict(data)))

    def checkpoint(self, ref: CheckpointRef) -> None:
        self._link.send(CheckpointWritten(directory=str(ref.directory), stage=ref.stage.value, step=ref.step))

    def stage_output(self, output: StageOutput) -> None:
        if self._shares:
            self._link.send(
                StageOutputWritten(stage=output.stage.value, digest=output.digest, directory=str(output.directory))
            )

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        told = [
            {
                "prompt": self._prompts[sample.prompt_index],
                "reference": self._tokenizer.decode(sample.reference),
                "policy": self._tokenizer.decode(sample.policy),
            }
            for sample in samples
        ]
        self._link.send(SamplesWritten(step=step, samples=told))

    def stop_requested(self) -> StopRequest:
        return self._link.stop_mode or "none"


def main(work_dir: Path) -> None:
    assignment = Assignment.load((work_dir / ASSIGNMENT_FILE).read_text(encoding="utf-8"))
    link = SupervisorLink()
    link.send(Hello(pid=os.getpid(), versions=_versions(), device=assignment.device))
    try:
        _train(assignment, link, work_dir)
    except TrainingStopped:
        link.send(Stopped())
    except BadCheckpoint as error:
        link.send(TrainerEvent(level="warning", kind=CHECKPOINT_UNUSABLE, message=error.detail))
        link.send(Failed(code=error.failure_code.value, detail=error.detail))
    except TrainingFailure as error:
        link.send(Failed(code=error.failure_code.value, detail=error.detail))
    except NothingToEncode as error:
        link.send(Failed(code=FailureCode.BAD_DATA.value, detail=error.detail))
    except DomainError as error:
        link.send(Failed(code=FailureCode.BAD_BASE_MODEL.value, detail=error.detail))


def _train(assignment: Assignment, link: SupervisorLink, work_dir: Path) -> None:
    tokenizer = PairTokenizer.open(Path(assignment.base_model_dir))

    def show(done: int, total: int) -> None:
        link.send(Progress(stage="staging", step=done, total_steps=total))

    prepared = prepare(assignment, tokenizer, work_dir, show)
    link.send(Resolved(spec=prepared.spec.model_dump(mode="json")))
    _tell_set_aside(link, prepared)
    link.send(StageChanged(stage="staging", status="finished"))
    shares = prepared.spec.reuse
    plan = prepared.plan
    if shares and assignment.resume_from is None:
        plan = dataclasses.replace(plan, reuse=_find_reusable(link, plan))
    observer = PipeObserver(link, tokenizer, prepared.spec.sample_prompts, shares=shares)
    try:
        result = run(plan, observer)
    except BadStageOutput as error:
        message = f"{error.detail} It is computed anew."
        link.send(TrainerEvent(level="warning", kind="reuse_refused", message=message))
        result = run(dataclasses.replace(plan, reuse=ReusePlan()), observer)
    _add_tokenizer(Path(assignment.base_model_dir), result.policy_dir)
    link.send(Done(directory=str(result.policy_dir), evaluation=dict(result.evaluation)))


def _find_reusable(link: SupervisorLink, plan: TrainingPlan) -> ReusePlan:
    """Asks for the outputs of equal stages of earlier jobs."""
    found = {}
    for stage, digest in (("sft", sft_digest(plan)), ("reference", reference_digest(plan))):
        if digest is not None:
            found[stage] = link.ask(StageOutputQuery(stage=stage, digest=digest)).directory
    return ReusePlan(sft_dir=found.get("sft"), reference_dir=found.get("reference"))


def _tell_set_aside(link: SupervisorLink, prepared: Prepared) -> None:
    if not prepared.num_set_aside:
        return
    first = prepared.set_aside[0]
    message = f"{prepared.num_set_aside} rows are not trained on; the first is line {first.line}: {first.detail}."
    data = describe_set_aside(prepared)
    link.send(TrainerEvent(level="warning", kind=PAIRS_SET_ASIDE, message=message, data=data))


def _add_tokenizer(base_model_dir: Path, policy_dir: Path) -> None:
    for name in TOKENIZER_FILES:
        if (base_model_dir / name).is_file() and not (policy_dir / name).exists():
            shutil.copyfile(base_model_dir / name, policy_dir / name)


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("preftune", "torch", "transformers")}
    return found | {"python": platform.python_version()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
