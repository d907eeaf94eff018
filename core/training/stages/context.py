"""State that the stages of a run share."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from core.domain.dataset_rows import DatasetKind
from core.domain.jobs.methods import get_method
from core.domain.variants.checks import get_variant
from core.training.checkpoints.digests import run_digest, run_versions
from core.training.checkpoints.files import Checkpoint, read_checkpoint
from core.training.checkpoints.writer import CheckpointWriter
from core.training.data.encoded import EncodedData
from core.training.data.order import DataOrder, partners, prompt_row_groups, row_groups
from core.training.data.prompt_groups import prompt_groups
from core.training.data.token_budget import MAX_HALVINGS, TokenBudget
from core.training.failures import BadData, BadPlan
from core.training.observer import JsonValue, Observer, Stage
from core.training.plan import SftPlan, TrainingPlan
from core.training.ranks import ALONE, Ranks


@dataclass
class RunContext:
    """An opened plan with its data and checkpoint."""

    plan: TrainingPlan
    observer: Observer
    device: torch.device
    work_dir: Path
    train: EncodedData
    validation: EncodedData | None
    budget: TokenBudget
    checkpoints: CheckpointWriter
    checkpoint: Checkpoint | None
    """What to resume from, until the stage has taken it."""
    ranks: Ranks
    footprints: dict[str, dict[str, JsonValue]] = field(default_factory=dict)
    """What was measured of each stage's memory before its first step (`micro_batch`)."""
    told: set[str] = field(default_factory=set)
    """Kinds of events that are sent once a run, whatever the number of stages that find the same."""

    def tell_once(
        self, kind: str, message: str, data: Mapping[str, JsonValue], level: Literal["info", "warning"] = "info"
    ) -> None:
        """Send an event, unless one of its kind was sent."""
        if kind not in self.told:
            self.told.add(kind)
            self.observer.event(level, kind, message, data)

    def is_past(self, stage: Stage) -> bool:
        """Whether the run resumes in a later stage."""
        order = list(Stage)
        return self.checkpoint is not None and order.index(self.checkpoint.stage) > order.index(stage)

    def take_checkpoint(self, stage: Stage) -> Checkpoint | None:
        """Return the checkpoint to resume this stage from, once."""
        found = self.checkpoint
        if found is None or found.stage is not stage:
            return None
        self.checkpoint = None
        return found

    def fresh_path(self, name: str) -> Path:
        """Return a new path for an output of that name; the first rank of a node removes an older one."""
        path = self.work_dir / name
        if path.is_dir() and self.ranks.is_node_leader:
            shutil.rmtree(path)
        return path

    @property
    def cuts_prompts(self) -> bool:
        """Whether the rows of a prompt may go over several steps; not where the loss compares them."""
        return not get_variant(self.plan.variant).compares_lists

    def row_groups(self, data: EncodedData) -> list[list[int]]:
        """Split rows that are evaluated into what an objective sees together: as many as of a step."""
        size = self.plan.last_stage.batch_size
        if not self.plan.group_by_prompt:
            return row_groups(len(data), size)
        return prompt_row_groups(data, size, cuts_groups=self.cuts_prompts)

    def order_of(self, data: EncodedData, plan: SftPlan, stage: Stage) -> DataOrder:
        """Return the order of a stage's rows."""
        groups = prompt_groups(data) if self.plan.group_by_prompt else None
        cuts_groups = self.cuts_prompts
        if groups is not None and (largest := int(np.bincount(groups).max())) > plan.batch_size:
            spread = "its rows go over consecutive steps, each of which computes the prompt"
            whole = f"they are one step, since {self.plan.variant} compares all of them"
            self.tell_once(
                "prompts_spread" if cuts_groups else "prompts_whole",
                f"A prompt has {largest} rows, and a step takes {plan.batch_size}: {spread if cuts_groups else whole}. "
                "A larger batch size takes prompts of that size in one step.",
                {"stage": stage.value, "largest": largest, "batch_size": plan.batch_size},
            )
        return DataOrder(
            len(data),
            plan.batch_size,
            plan.epochs,
            seed=self.plan.seed,
            stage=stage,
            groups=groups,
            cuts_groups=cuts_groups,
        )


def open_run(plan: TrainingPlan, observer: Observer, ranks: Ranks = ALONE) -> RunContext:
    """Open data, checkpoint and process settings of a run; no model is loaded yet.

    Raises:
        BadPlan: settings that do not fit together.
        BadData: rows of another kind, or none.
        BadCheckpoint: a checkpoint of another run, or a damaged one.
    """
    _prepare_process(plan)
    Path(plan.work_dir).mkdir(parents=True, exist_ok=True)
    validation = None if plan.validation_data is None else _open_split(plan, plan.validation_data, may_be_empty=True)
    if plan.last_stage.early_stopping is not None and validation is None:
        raise BadPlan("early_stopping needs validation rows: set validation_fraction or validation_dataset_id.")
    if plan.sft is None and plan.sft_data is not None:
        raise BadPlan("There is a demonstration dataset, but SFT is skipped.")
    digest = run_digest(plan)
    checkpoint = None if plan.resume_from is None else read_checkpoint(Path(plan.resume_from), digest)
    if checkpoint is not None and checkpoint.versions != run_versions(plan):
        observer.event(
            "warning",
            "resumed_elsewhere",
            "The run goes on with other library versions, or on another kind or number of devices than before: "
            "from here on its last bits may differ.",
            {"before": dict(checkpoint.versions), "now": run_versions(plan)},
        )
    tokens = plan.micro_batch_tokens if checkpoint is None else checkpoint.micro_batch_tokens
    budget = TokenBudget.resumed(plan.micro_batch_tokens, tokens)
    if ranks.size > 1:
        budget.halvings = MAX_HALVINGS  # one rank alone cannot begin anew: the others wait for it
    return RunContext(
        plan=plan,
        observer=observer,
        device=torch.device(plan.device),
        work_dir=Path(plan.work_dir),
        train=_open_split(plan, plan.train_data),
        validation=validation if validation is not None and len(validation) else None,
        budget=budget,
        checkpoints=CheckpointWriter(Path(plan.work_dir) / "checkpoints", digest, run_versions(plan), observer, ranks),
        checkpoint=checkpoint,
        ranks=ranks,
    )


def open_rows(directory: str, kind: str, *, may_be_empty: bool = False) -> EncodedData:
    """Open encoded rows of a kind.

    Raises:
        BadData: another kind, or no row.
    """
    data = EncodedData.open(Path(directory))
    if data.kind != kind:
        raise BadData(f"The rows are of kind {data.kind}; this stage takes {kind} rows.")
    if not len(data) and not may_be_empty:
        raise BadData("No row is left to train on: all were empty or longer than max_length.")
    return data


def _open_split(plan: TrainingPlan, directory: str, *, may_be_empty: bool = False) -> EncodedData:
    """Open rows of the last training stage; unpaired ones with their partners."""
    kind = get_method(plan.method).encoded_kind_for(plan.variant)
    data = open_rows(directory, kind, may_be_empty=may_be_empty)
    if kind is not DatasetKind.UNPAIRED:
        return data
    if len(data) < 2 and not may_be_empty:
        raise BadData(f"`{plan.variant}` compares each response with another one, and there is only one row.")
    return data.with_partners(partners(len(data), plan.seed))


def _prepare_process(plan: TrainingPlan) -> None:
    """Set threads, and on CUDA only kernels that give the same bits every time."""
    torch.set_num_threads(plan.num_threads)
    if plan.device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
