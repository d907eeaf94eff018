"""From an assignment to the engine's plan: split, tokenise, and put numbers in the place of every `auto`."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.base_models.directory import base_model_digest, get_base_model
from core.datasets.splitting import split_validation
from core.domain.dataset_rows import DatasetKind
from core.domain.job_spec import JobSpec, StageSettings, resolve_staged
from core.domain.trainer_protocol import Assignment
from core.domain.variants import get_variant
from core.tokenization.encode_file import EncodeSummary, SetAside, encode_file
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.plan import DpoPlan, EarlyStoppingPlan, LoraPlan, SftPlan, TrainingPlan

MAX_LINES_TOLD = 100
Progress = Callable[[int, int], None]
"""Rows done, rows in all."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    spec: JobSpec
    """With no `auto` left."""
    plan: TrainingPlan
    set_aside: list[SetAside]
    num_set_aside: int


def prepare(assignment: Assignment, tokenizer: PairTokenizer, work_dir: Path, on_progress: Progress) -> Prepared:
    """Raises the errors of tokenization, and NothingToEncode when no row fits."""
    spec = JobSpec.model_validate(assignment.spec)
    encoder = _Encoder(tokenizer, work_dir, spec, on_progress)
    train_rows, validation_rows = _split(assignment, spec, work_dir)
    train = encoder.encode(train_rows, "train", encoder.kind)
    validation = encoder.encode(validation_rows, "validation", encoder.kind) if validation_rows else None
    demonstrations = (
        encoder.encode(Path(assignment.sft_rows), "sft", DatasetKind.DEMONSTRATION) if assignment.sft_rows else None
    )
    num_sft_rows = (demonstrations or train).num_rows
    spec = resolve_staged(spec, num_sft_rows=num_sft_rows, num_train_pairs=train.num_rows, device=assignment.device)
    plan = TrainingPlan(
        base_model_dir=assignment.base_model_dir,
        base_model_digest=_digest_of(Path(assignment.base_model_dir)),
        train_data=str(encoder.directory("train")),
        validation_data=str(encoder.directory("validation")) if validation else None,
        sft_data=str(encoder.directory("sft")) if demonstrations else None,
        device=assignment.device,
        num_threads=max(1, assignment.num_threads),
        sample_prompts=tuple(tuple(tokenizer.encode_prompt(prompt)) for prompt in spec.sample_prompts),
        eos_token_ids=tokenizer.eos_ids,
        work_dir=str(work_dir / "run"),
        resume_from=assignment.resume_from,
        **_settings(spec),
    )
    return Prepared(spec=spec, plan=plan, set_aside=encoder.set_aside, num_set_aside=encoder.num_set_aside)


class _Encoder:
    def __init__(self, tokenizer: PairTokenizer, work_dir: Path, spec: JobSpec, on_progress: Progress) -> None:
        self._tokenizer = tokenizer
        self._root = work_dir / "encoded"
        self._spec = spec
        self._on_progress = on_progress
        self.kind = DatasetKind(get_variant(spec.variant).data)
        self.set_aside: list[SetAside] = []
        self.num_set_aside = 0

    def directory(self, name: str) -> Path:
        return self._root / name

    def encode(self, rows: Path, name: str, kind: DatasetKind) -> EncodeSummary:
        summary = encode_file(
            rows,
            self._tokenizer,
            self.directory(name),
            kind=kind,
            max_length=self._spec.max_length,
            on_progress=lambda done: self._on_progress(done, self._spec.num_pairs),
        )
        self.set_aside += summary.set_aside[: MAX_LINES_TOLD - len(self.set_aside)]
        self.num_set_aside += summary.num_set_aside
        return summary


def _split(assignment: Assignment, spec: JobSpec, work_dir: Path) -> tuple[Path, Path | None]:
    rows = Path(assignment.rows)
    if assignment.validation_rows:
        return rows, Path(assignment.validation_rows)
    if not spec.validation_fraction:
        return rows, None
    train, validation = work_dir / "train-rows.jsonl", work_dir / "validation-rows.jsonl"
    counts = split_validation(rows, spec.validation_fraction, spec.seed, train, validation)
    return train, validation if counts.num_validation else None


def _settings(spec: JobSpec) -> dict[str, Any]:
    """What the plan takes over as it is."""
    stopping = spec.early_stopping
    return {
        "sft": None if isinstance(spec.sft, str) else SftPlan(**_stage(spec.sft)),
        "dpo": DpoPlan(
            **_stage(spec.dpo), early_stopping=EarlyStoppingPlan(**stopping.model_dump()) if stopping else None
        ),
        "variant": spec.variant,
        "beta": spec.beta,
        "variant_options": spec.variant_options,
        "lora": _lora(spec),
        "precision": spec.precision,
        "seed": spec.seed,
        "evaluate_every_steps": spec.evaluate_every_steps,
        "checkpoint_every_steps": spec.checkpoint_every_steps,
        "micro_batch_tokens": spec.micro_batch_tokens,
    }


def _stage(settings: StageSettings) -> dict[str, Any]:
    return settings.model_dump(exclude={"dataset_id"})


def _lora(spec: JobSpec) -> LoraPlan | None:
    if spec.lora is None:
        return None
    values = spec.lora.model_dump()
    modules = values["target_modules"]
    return LoraPlan(**values | {"target_modules": modules if isinstance(modules, str) else tuple(modules)})


def _digest_of(folder: Path) -> str:
    return base_model_digest(get_base_model(folder.parent, folder.name))


def describe_set_aside(prepared: Prepared) -> dict[str, Any]:
    """For the event: how many rows, and the first of them."""
    return {"count": prepared.num_set_aside, "rows": [asdict(row) for row in prepared.set_aside]}
