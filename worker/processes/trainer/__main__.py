"""The trainer process: `python -m worker.processes.trainer <work directory>`. It loads torch.

Reads the assignment, turns rows into token ids and the spec into a plan, runs the engine, and says everything in the
messages of `core.domain.trainer_protocol`.
"""

import json
import os
import platform
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import transformers
from pydantic import ValidationError

from core.children.launched import launched_rank, leads_node, leave, report_failure
from core.datasets.editing import UnknownLines
from core.disk_space import GOES_ON, full_disk_detail, is_out_of_space, purpose_of, room_for
from core.domain.errors import DomainError
from core.domain.jobs.event_kinds import BASE_ROUNDED, CHECKPOINT_UNUSABLE, COMPUTES_IN_FP32, SLOW_PRECISION
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_spec import JobSpec, resolve_staged
from core.domain.jobs.spec_forms import stored_form
from core.domain.trainer_protocol import (
    ASSIGNMENT_FILE,
    Assignment,
    Done,
    Failed,
    Hello,
    Measured,
    Resolved,
    StageChanged,
    StageOutputQuery,
    Stopped,
    TrainerEvent,
    encode_message,
)
from core.domain.training.artifact_files import PAIRS_FILE, SUMMARY_FILE
from core.tokenization.errors import DamagedRows, EncodingStopped, NothingToEncode
from core.training.checkpoints.digests import reference_digest, sft_digest
from core.training.data.encoded import EncodedData
from core.training.data.prompt_groups import is_ranked
from core.training.failures import BadCheckpoint, BadStageOutput, PolicyNotSavedWell, TrainingFailure, TrainingStopped
from core.training.measures.pair_report import untrained_pair
from core.training.model.precision import faster_precision, holds_merged_adapter, is_rounded_by_bf16
from core.training.pipeline import TrainingResult
from core.training.plan import Precision, ReusePlan, TrainingPlan
from core.training.run_on_devices import Member, run_on_devices
from worker.processes.trainer.inputs import EncodedInputs, InputEncoder, StoppedWhileStaging, open_tokenizer
from worker.processes.trainer.measuring import measure
from worker.processes.trainer.node import follow
from worker.processes.trainer.observer import LinkObserver, finite
from worker.processes.trainer.plan import make_plan
from worker.processes.trainer.policy_folder import PolicyFolder
from worker.processes.trainer.sharing import share_model
from worker.processes.trainer.supervisor_link import SupervisorLink
from worker.processes.trainer.timeline import Timeline

_SLOW_PRECISION_MESSAGE = (
    "This worker's processor has no instructions for bf16, so training takes many times longer than in fp32. "
    'Set "precision" to "auto" or "fp32".'
)
_EXACT_MESSAGE = (
    "The base model is a policy that LoRA tuned; bf16 would round away a part of its update, so this job computes in "
    'fp32, which is slower on this device. Set "precision" to "bf16" to have the speed at that price.'
)
_ROUNDED_MESSAGE = "The base model's weights are finer than bf16 and are rounded to it for this job."
_UPDATE_LOST_MESSAGE = (
    ' It is a policy that LoRA tuned, a part of whose update is lost by that. Set "precision" to "fp32" or "auto".'
)
_RECURRING = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError, ValueError)
"""What the same code raises on the same input; RuntimeError and OSError may be the machine's."""


def main(work_dir: Path) -> int:
    """Run the trainer, or its part of one rank; return 0 when the run ended as it should, also when it was stopped."""
    rank = launched_rank()
    link = SupervisorLink() if rank is None or leads_node() else None
    try:
        member = None if rank is None else Member.of_launch()
        if rank:
            assert member is not None
            follow(member, work_dir, link)
        else:
            assert link is not None
            _lead(link, work_dir, member)
        return 0
    except TrainingStopped:  # the leader says it
        return 0
    except Exception as error:  # noqa: BLE001 - the entry of the process: whatever it is, the supervisor hears of it
        traceback.print_exc()  # here, where the exception is the current one: it goes to the worker's log
        messages = last_words(error)
        if link is None or rank is not None:
            report_failure(error, [encode_message(message).decode() for message in messages])
        else:
            for message in messages:
                link.send(message)
        return 1


def _lead(link: SupervisorLink, work_dir: Path, member: Member | None) -> None:
    try:
        train(link, work_dir, member)
    except StoppedWhileStaging:
        if member is not None:
            member.dismiss()
        link.send(Stopped())
    except TrainingStopped as stop:
        link.send(Stopped(is_planned=stop.is_planned))


def last_words(error: Exception) -> list[TrainerEvent | Failed]:
    """Return the last messages to the supervisor."""
    if isinstance(error, BadCheckpoint):
        event = TrainerEvent(level="warning", kind=CHECKPOINT_UNUSABLE, message=error.detail)
        return [event, Failed(code=error.failure_code, detail=error.detail)]
    if isinstance(error, TrainingFailure):
        recurs = isinstance(error, PolicyNotSavedWell)
        return [Failed(code=error.failure_code, detail=error.detail, recurs=recurs)]
    return [explain(error)]


def train(link: SupervisorLink, work_dir: Path, member: Member | None = None) -> None:
    assignment = Assignment.load((work_dir / ASSIGNMENT_FILE).read_text(encoding="utf-8"))
    fast_precision = _introduce(link, assignment)
    with Timeline(assignment.device) as timeline:
        _train(link, assignment, work_dir, fast_precision, timeline, member)


def _train(
    link: SupervisorLink,
    assignment: Assignment,
    work_dir: Path,
    fast_precision: Precision,
    timeline: Timeline,
    member: Member | None,
) -> None:
    spec = JobSpec.model_validate(assignment.spec)
    tokenizer = open_tokenizer(assignment, spec)
    encoder = InputEncoder(link=link, assignment=assignment, work_dir=work_dir, tokenizer=tokenizer, spec=spec)
    inputs = encoder.encode()
    base_model_dir, is_resumed = Path(assignment.base_model_dir), assignment.resume_from is not None
    is_exact = spec.precision == "auto" and holds_merged_adapter(base_model_dir)
    spec = resolve_staged(
        spec,
        num_sft_rows=_count_sft_rows(inputs),
        num_train_pairs=inputs.train.num_rows,
        device=assignment.device,
        fast_precision="fp32" if is_exact else fast_precision,
        is_ranked=is_ranked(EncodedData.open(inputs.train.directory)),
    )
    timeline.lap("staging:end")
    link.send(Resolved(spec=stored_form(spec)))
    if not is_resumed:
        for event in precision_events(spec, base_model_dir, fast_precision, is_exact=is_exact):
            link.send(event)
    link.send(StageChanged(stage="staging", status="finished"))
    plan = share_model(make_plan(assignment, spec, inputs, tokenizer, _engine_dir(work_dir)), assignment, link.send)
    if _may_reuse(spec, assignment):
        plan = replace(plan, reuse=_find_reusable(link, plan))
    folder = PolicyFolder.of(spec, base_model_dir, tokenizer)
    texts = (spec.sample_prompts, tokenizer.decode)
    observer = LinkObserver(link, *texts, complete_policy=folder.complete, shares_outputs=spec.reuse, timeline=timeline)
    result = _run(plan, observer, member)
    _complete_artifact(folder, result, encoder.too_long)
    timeline.lap("finish")
    if not is_resumed:  # of a part of a job nothing can be foretold
        link.send(Measured(values=measure(base_model_dir, spec, inputs, timeline, result.footprints)))
    link.send(Done(directory=str(result.policy_dir), evaluation=finite(result.evaluation)))


def _may_reuse(spec: JobSpec, assignment: Assignment) -> bool:
    """A checkpoint already holds what it needs; on several nodes each would have to fetch what there is."""
    return spec.reuse and assignment.resume_from is None and assignment.num_nodes == 1


def _engine_dir(work_dir: Path) -> Path:
    directory = work_dir / "engine"
    directory.mkdir(exist_ok=True)
    return directory


def _introduce(link: SupervisorLink, assignment: Assignment) -> Precision:
    """Send the first message; return the device's faster precision, measured unless the worker knows it."""
    fast_precision = assignment.fast_precision or faster_precision(assignment.device)
    name = _device_name(assignment.device)
    link.send(Hello(pid=os.getpid(), versions=_versions(), device=name, fast_precision=fast_precision))
    return fast_precision


def precision_events(
    spec: JobSpec, base_model_dir: Path, fast_precision: Precision, *, is_exact: bool
) -> Iterator[TrainerEvent]:
    """Describe the cost of the job's precision, in time or in the base model's weights."""
    if spec.precision == "bf16" and fast_precision == "fp32":
        yield TrainerEvent(level="warning", kind=SLOW_PRECISION, message=_SLOW_PRECISION_MESSAGE)
    if is_exact and fast_precision == "bf16":
        yield TrainerEvent(level="info", kind=COMPUTES_IN_FP32, message=_EXACT_MESSAGE)
    if spec.precision == "bf16" and is_rounded_by_bf16(base_model_dir):
        is_tuned = holds_merged_adapter(base_model_dir)
        message = _ROUNDED_MESSAGE + (_UPDATE_LOST_MESSAGE if is_tuned else "")
        yield TrainerEvent(level="warning" if is_tuned else "info", kind=BASE_ROUNDED, message=message)


def _count_sft_rows(inputs: EncodedInputs) -> int:
    """Count demonstrations, chosen responses, or the unpaired ones marked good."""
    if inputs.sft is not None:
        return inputs.sft.num_rows
    train = EncodedData.open(inputs.train.directory)
    return int(train.labels.sum()) if train.kind == "unpaired" else len(train)


def _run(plan: TrainingPlan, observer: LinkObserver, member: Member | None) -> TrainingResult:
    try:
        return run_on_devices(plan, observer, member)
    except BadStageOutput as error:
        observer.event("warning", "reuse_refused", f"{error.detail} It is computed again.", {})
        return run_on_devices(replace(plan, reuse=ReusePlan()), observer, member)


def _find_reusable(link: SupervisorLink, plan: TrainingPlan) -> ReusePlan:
    """Find outputs of equal stages of earlier jobs."""
    return ReusePlan(
        sft_dir=_ask(link, "sft", sft_digest(plan)), reference_dir=_ask(link, "reference", reference_digest(plan))
    )


def _ask(link: SupervisorLink, stage: str, digest: str | None) -> str | None:
    return None if digest is None else link.ask(StageOutputQuery(stage=stage, digest=digest)).directory


def _complete_artifact(folder: PolicyFolder, result: TrainingResult, too_long: Iterable[tuple[str, int]]) -> None:
    """Add tokenizer, the measurements and the pair report."""
    text = json.dumps(result.summary, indent=1, allow_nan=False)
    with room_for("the files beside the tuned policy"):
        folder.complete(result.policy_dir)
        (result.policy_dir / SUMMARY_FILE).write_text(text + "\n", encoding="utf-8")
        if result.pairs_file is not None:
            shutil.copyfile(result.pairs_file, result.policy_dir / PAIRS_FILE)
            with (result.policy_dir / PAIRS_FILE).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(untrained_pair(split, line)) + "\n" for split, line in too_long)


def explain(error: Exception) -> Failed:
    """Translate a foreign failure to the closed list of codes."""
    if is_out_of_space(error):
        detail = full_disk_detail(purpose_of(error), GOES_ON)
        return Failed(code=FailureCode.DISK_FULL, detail=detail)
    if isinstance(error, NothingToEncode | DamagedRows | UnknownLines):
        return Failed(code=FailureCode.BAD_DATA, detail=error.detail)
    if isinstance(error, EncodingStopped):
        return Failed(code=FailureCode.HOST_OOM, detail=error.detail)
    if isinstance(error, DomainError):  # of base model, tokenizer or chat template
        return Failed(code=FailureCode.BAD_BASE_MODEL, detail=error.detail)
    if isinstance(error, ValidationError):
        return Failed(code=FailureCode.BAD_SPEC, detail="The stored settings are not those of this version.")
    if isinstance(error, MemoryError):
        return Failed(code=FailureCode.HOST_OOM, detail="The machine has too little memory.")
    detail = f"An unexpected {type(error).__name__} in the trainer; the job's log (GET /jobs/<id>/log) says more."
    return Failed(code=FailureCode.INTERNAL, detail=detail, recurs=isinstance(error, _RECURRING))


def _versions() -> dict[str, str]:
    try:
        own = version("preftune")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "preftune": own,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": str(transformers.__version__),
    }


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or device


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    if launched_rank() is not None:
        leave(code)
    sys.exit(code)
