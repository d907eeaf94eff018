"""The process that merges a published adapter again: `python -m worker.processes.republication <work directory>`.

Reads `republish.json` (`RepublishTask`). Base model and adapter are added in float32, the old weights are compared with
that sum, and the new folder is verified as a training's is. Writes `policy/` and `verification.json`, or `refused.txt`
with a sentence for the user.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from core.domain.dataset_rows import DatasetKind
from core.domain.errors import DomainError
from core.domain.jobs.job_spec import JobSpec, resolve_staged
from core.domain.jobs.methods import get_method
from core.domain.trainer_protocol import Assignment
from core.domain.training.artifact_files import SUMMARY_FILE
from core.tokenization.encode_file import encode_file
from core.tokenization.errors import NothingToEncode
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.data.encoded import EncodedData
from core.training.failures import PolicyNotSavedWell
from core.training.measures.saved_folder import SavedPolicy
from core.training.measures.saved_policy_check import verify
from core.training.model.adapters import adapter_files
from core.training.model.adapters.merging import trained_weights
from core.training.model.policies import ADAPTER_DIR, load_untrained, save_artifact, trained_digests
from core.training.plan import TrainingPlan
from core.training.stages.memory_costs import available_bytes
from core.training.stages.model_checks import keep_packing_where_it_holds
from core.training.stages.publication import SavedArtifact, published_facts, verification_facts
from worker.processes.trainer.inputs import EncodedInputs, EncodedSplit, open_tokenizer
from worker.processes.trainer.plan import make_plan
from worker.processes.trainer.policy_folder import PolicyFolder

TASK_FILE, REFUSED_FILE, VERIFICATION_FILE = "republish.json", "refused.txt", "verification.json"
POLICY_DIR = "policy"
_NICENESS = 5
_OLD_FILES = ("model*.safetensors", "model.safetensors.index.json")
_ROUNDING = 2.0**-7
"""Share of base weight and update that merging in bf16 may have rounded away, twice."""
_STAND_IN = {"line": 1, "prompt": "Write a short greeting.", "chosen": "Hello! How are you today?", "rejected": "No."}
"""Verified on where the dataset is gone."""


@dataclass(frozen=True, kw_only=True)
class RepublishTask:
    """Plain values and local paths."""

    spec: dict[str, Any]
    base_model_dir: str
    artifact_dir: str
    """What was published, adapter included."""
    rows: list[str]
    """Lines of the dataset; may be empty."""
    num_threads: int
    submitted_at: str


def main(work_dir: Path) -> int:
    os.nice(_NICENESS)
    task = RepublishTask(**json.loads((work_dir / TASK_FILE).read_text(encoding="utf-8")))
    torch.set_num_threads(task.num_threads)
    try:
        facts = republish(task, work_dir)
    except DomainError as error:
        (work_dir / REFUSED_FILE).write_text(error.detail, encoding="utf-8")
        return 0
    (work_dir / VERIFICATION_FILE).write_text(json.dumps(facts, allow_nan=False), encoding="utf-8")
    return 0


def republish(task: RepublishTask, work_dir: Path) -> dict[str, Any]:
    """Write the new folder; return `published` and `verification` for its summary. Raises DomainError."""
    spec = JobSpec.model_validate(task.spec)
    old = Path(task.artifact_dir)
    plan, tokenizer, data = _prepare(task, spec, work_dir)
    model = load_untrained(plan, "cpu")
    num_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    _require_memory(num_bytes)
    adapter_files.load_adapter(model, old / ADAPTER_DIR)
    _require_same_sum(model, old)
    digests = trained_digests(model, plan)
    directory = work_dir / POLICY_DIR
    rounding = save_artifact(model, plan, directory)
    del model
    saved = SavedPolicy(plan, directory, digests, data, "cpu", lambda loaded: keep_packing_where_it_holds(loaded, data))
    verification = verify(saved)
    PolicyFolder(Path(task.base_model_dir), spec.base_model, tokenizer).complete(directory)
    facts = {
        "published": published_facts(SavedArtifact(directory, digests, rounding, num_bytes), verification),
        "verification": verification_facts(verification),
    }
    _take_over(old, directory, facts)
    return facts


def _prepare(task: RepublishTask, spec: JobSpec, work_dir: Path) -> tuple[TrainingPlan, PairTokenizer, EncodedData]:
    assignment = Assignment(
        job_id="",
        attempt=0,
        spec=task.spec,
        base_model_dir=task.base_model_dir,
        rows="",
        num_threads=task.num_threads,
        submitted_at=task.submitted_at,
    )
    spec = resolve_staged(spec, num_sft_rows=1, num_train_pairs=1, device="cpu", fast_precision="fp32")
    tokenizer = open_tokenizer(assignment, spec)
    split = _encode(task.rows, tokenizer, spec, work_dir)
    inputs = EncodedInputs(train=split, validation=None, sft=None)
    plan = make_plan(assignment, spec, inputs, tokenizer, work_dir / "engine")
    return plan, tokenizer, EncodedData.open(split.directory)


def _encode(rows: list[str], tokenizer: PairTokenizer, spec: JobSpec, work_dir: Path) -> EncodedSplit:
    """The rows that fit; a stand-in where none is left."""
    kind = get_method(spec.method).encoded_kind_for(spec.variant)
    for name, lines in (("rows", rows), ("stand-in", [_stand_in(kind)])):
        path, directory = work_dir / f"{name}.jsonl", work_dir / f"encoded-{name}"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        try:
            summary = encode_file(path, tokenizer, directory, kind=kind, max_length=spec.max_length, num_processes=1)
            return EncodedSplit(directory=directory, num_rows=summary.num_rows)
        except NothingToEncode:
            continue
    raise NothingToEncode("No row of the dataset fits, so nothing can be verified.")


def _stand_in(kind: DatasetKind) -> str:
    row = dict(_STAND_IN)
    if kind is DatasetKind.UNPAIRED:
        row = {"line": 1, "prompt": row["prompt"], "response": row["chosen"], "label": True}
    return json.dumps(row)


def _require_memory(num_bytes: int) -> None:
    available = available_bytes(torch.device("cpu"))
    if available is not None and available < num_bytes / 2:  # one model is held already, the check holds one at a time
        raise PolicyNotSavedWell(
            f"Merging and verifying in float32 needs {2 * num_bytes // 2**20} MiB, which this worker does not have."
        )


def _require_same_sum(model: PreTrainedModel, old: Path) -> None:
    """The old weights must be the sum of this base model and adapter, rounded to bf16. Raises PolicyNotSavedWell."""
    published = {
        name: tensor for path in sorted(old.glob("model*.safetensors")) for name, tensor in load_file(path).items()
    }
    for weight in trained_weights(model):
        found = published.get(weight.name)
        if found is None:  # tied to one that is there
            continue
        base = weight.base.detach().float()
        update = torch.zeros_like(base) if weight.update is None else weight.update
        limit = _ROUNDING * (base.abs() + update.abs()) if weight.update is not None else torch.zeros_like(base)
        if found.shape != base.shape or not bool(((found.float() - (base + update)).abs() <= limit).all()):
            raise PolicyNotSavedWell(
                f"The published weights are not the sum of this base model and the adapter ({weight.name} differs): "
                "the base model of that name is another one now. Put back the one that the job was trained on."
            )


def _take_over(old: Path, new: Path, facts: dict[str, Any]) -> None:
    """Copy what the merge does not change, and put what was measured into the summary."""
    replaced = {path for pattern in _OLD_FILES for path in old.glob(pattern)}
    for source in sorted(old.rglob("*")):
        target = new / source.relative_to(old)
        if source.is_file() and source not in replaced and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    path = new / SUMMARY_FILE
    summary = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(summary | facts, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
