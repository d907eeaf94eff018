"""A trainer's part where it does not lead: the leader's plan, with the paths of its own node.

The first trainer of a node makes the token ids of the rows for all of them, and tells its supervisor of the files that
they have written of a checkpoint.
"""

from dataclasses import replace
from pathlib import Path

from core.base_models.directory import base_model_digest, get_base_model
from core.domain.jobs.job_spec import JobSpec
from core.domain.trainer_protocol import ASSIGNMENT_FILE, Assignment, CheckpointWritten
from core.training.observer import CheckpointRef
from core.training.plan import ReusePlan, TrainingPlan
from core.training.run_on_devices import Member
from worker.processes.trainer.inputs import InputEncoder, open_tokenizer
from worker.processes.trainer.supervisor_link import SupervisorLink


def follow(member: Member, work_dir: Path, link: SupervisorLink | None) -> None:
    """Run the part of a rank that does not lead; `link` is that of a node's first."""
    assignment = Assignment.load((work_dir / ASSIGNMENT_FILE).read_text(encoding="utf-8"))
    if assignment.node == 0:
        member.follow()
        return
    encoded = f"encoded/{assignment.node}"
    if link is None:
        member.await_word(encoded)
        member.follow(localise=lambda plan: local_plan(plan, assignment, work_dir))
        return
    spec = JobSpec.model_validate(assignment.spec)
    tokenizer = open_tokenizer(assignment, spec)
    InputEncoder(link=link, assignment=assignment, work_dir=work_dir, tokenizer=tokenizer, spec=spec).encode()
    member.tell(encoded)

    def tell_checkpoint(ref: CheckpointRef) -> None:
        link.send(CheckpointWritten(directory=str(ref.directory), stage=ref.stage.value, step=ref.step))

    member.follow(
        localise=lambda plan: local_plan(plan, assignment, work_dir),
        tell_checkpoint=tell_checkpoint,
    )


def local_plan(plan: TrainingPlan, assignment: Assignment, work_dir: Path) -> TrainingPlan:
    """Return the leader's plan with the paths, the base model and the device of this node."""
    theirs = Path(plan.work_dir).parent
    base_model_dir = Path(assignment.base_model_dir)

    def own(path: str) -> str:
        return str(work_dir / Path(path).relative_to(theirs))

    return replace(
        plan,
        base_model_dir=str(base_model_dir),
        base_model_digest=base_model_digest(get_base_model(base_model_dir.parent, base_model_dir.name)),
        train_data=own(plan.train_data),
        validation_data=None if plan.validation_data is None else own(plan.validation_data),
        sft_data=None if plan.sft_data is None else own(plan.sft_data),
        work_dir=own(plan.work_dir),
        resume_from=assignment.resume_from,
        reuse=ReusePlan(),
        device=assignment.device,
        num_threads=assignment.num_threads,
    )
