"""Mapping of a job's spec to the engine's plan."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from core.base_models.directory import base_model_digest, get_base_model
from core.domain.jobs.job_spec import JobSpec, StageSettings
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import get_method
from core.domain.trainer_protocol import Assignment
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.plan import (
    DpoPlan,
    EarlyStoppingPlan,
    LoraPlan,
    OptimizerName,
    RewardPlan,
    Schedule,
    SftPlan,
    TrainingPlan,
)
from worker.processes.trainer.inputs import EncodedInputs


def make_plan(
    assignment: Assignment, spec: JobSpec, inputs: EncodedInputs, tokenizer: PairTokenizer, work_dir: Path
) -> TrainingPlan:
    """Return the plan of a `spec` that has no `auto` left."""
    base_model_dir = Path(assignment.base_model_dir)
    assert spec.precision != "auto"
    method = get_method(spec.method)
    stopping = {method.last: _early_stopping(spec)}
    return TrainingPlan(
        base_model_dir=str(base_model_dir),
        base_model_digest=base_model_digest(get_base_model(base_model_dir.parent, base_model_dir.name)),
        train_data=str(inputs.train.directory),
        validation_data=str(inputs.validation.directory) if inputs.validation else None,
        sft_data=str(inputs.sft.directory) if inputs.sft else None,
        sft=None if spec.sft == "skip" else SftPlan(**_stage(spec.sft), early_stopping=stopping.get(Stage.SFT)),
        dpo=DpoPlan(**_stage(spec.dpo), early_stopping=stopping.get(Stage.DPO)) if method.has(Stage.DPO) else None,
        reward=_reward(spec) if method.has(Stage.REWARD) else None,
        pad_token_id=None if method.publishes_policy else tokenizer.padding_id,
        method=spec.method,
        variant=spec.variant,
        beta=TrainingPlan.beta if spec.beta is None else spec.beta,
        variant_options=spec.variant_options,
        lora=_lora(spec),
        precision=spec.precision,
        artifact_dtype=spec.artifact_dtype,
        device=assignment.device,
        num_devices=assignment.num_ranks,
        num_threads=assignment.num_threads,
        seed=spec.seed,
        group_by_prompt=spec.group_by_prompt is True,
        evaluate_every_steps=int(spec.evaluate_every_steps),
        checkpoint_every_steps=int(spec.checkpoint_every_steps),
        pause_at_share=assignment.pause_at_share,
        micro_batch_tokens=int(spec.micro_batch_tokens),
        score_train_rows=spec.score_training_pairs,
        sample_prompts=encode_prompts(tokenizer, spec.sample_prompts),
        eos_token_ids=tokenizer.eos_ids,
        work_dir=str(work_dir),
        resume_from=assignment.resume_from,
    )


def encode_prompts(tokenizer: PairTokenizer, prompts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tokenizer.encode_prompt(prompt)) for prompt in prompts)


class _Stage(TypedDict):
    """Plan values of a stage's settings; a type checker compares it with the plan's fields."""

    epochs: int
    learning_rate: float
    batch_size: int
    warmup_steps: int
    schedule: Schedule
    optimizer: OptimizerName
    weight_decay: float
    max_grad_norm: float


def _stage(settings: StageSettings) -> _Stage:
    assert settings.schedule != "auto"
    assert settings.optimizer != "auto"
    return {
        "epochs": int(settings.epochs),
        "learning_rate": float(settings.learning_rate),
        "batch_size": int(settings.batch_size),
        "warmup_steps": int(settings.warmup_steps),
        "schedule": settings.schedule,
        "optimizer": settings.optimizer,
        "weight_decay": float(settings.weight_decay),
        "max_grad_norm": float(settings.max_grad_norm),
    }


def _reward(spec: JobSpec) -> RewardPlan:
    return RewardPlan(
        **_stage(spec.reward),
        early_stopping=_early_stopping(spec),
        center_rewards_coefficient=spec.reward.center_rewards_coefficient,
    )


def _early_stopping(spec: JobSpec) -> EarlyStoppingPlan | None:
    wanted = spec.early_stopping
    if wanted is None:
        return None
    assert wanted.restore_best != "auto"
    return EarlyStoppingPlan(
        metric=wanted.metric, patience=wanted.patience, min_delta=wanted.min_delta, restore_best=wanted.restore_best
    )


def _lora(spec: JobSpec) -> LoraPlan | None:
    wanted = spec.lora
    if wanted is None:
        return None
    modules, parameters = wanted.target_modules, wanted.target_parameters
    return LoraPlan(
        rank=wanted.rank,
        alpha=wanted.alpha,
        dropout=wanted.dropout,
        target_modules="all-linear" if modules == "all-linear" else tuple(modules),
        target_parameters="all-experts" if parameters == "all-experts" else tuple(parameters),
    )
